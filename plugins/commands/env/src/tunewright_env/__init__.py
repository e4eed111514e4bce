"""Environments for libraries that cannot share one: `tunewright env list | create | run`."""

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(help="an environment that `tunewright env list` shows")]


def list_all() -> None:
    """List the environments that there are, which of them are created, and where."""
    from tunewright_env.environments import environments

    for environment in environments().values():
        state = str(environment.folder) if environment.is_ready() else "not created"
        print(f"{environment.name:<12} {state}\n             {environment.summary}")


def create(name: Name) -> None:
    """Create an environment from its tested set of versions; nothing happens where it is ready.

    It lies in $TUNEWRIGHT_ENVS/NAME, without the variable in ~/.cache/tunewright/envs/NAME. An
    overlay sees the packages of the present environment and adds what is missing.
    """
    from tunewright_env.creation import create_environment
    from tunewright_env.environments import find

    create_environment(find(name))


def run(
    name: Name,
    command: Annotated[
        list[str], typer.Argument(help="what to run, after --", metavar="-- COMMAND")
    ],
) -> None:
    """Run a command in an environment: `tunewright env run NAME -- tunewright train recipe.yaml`.

    The exit code is the command's.
    """
    from tunewright_env.environments import find
    from tunewright_env.launch import run_in

    run_in(find(name), command)
