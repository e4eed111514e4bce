"""Environments for libraries that cannot share one, and `tunewright env doctor`."""

from typing import Annotated

import typer

from tunewright.cli_common import AsJson

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


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")] = False,
    as_json: AsJson = False,
) -> None:
    """Examine this environment: GPU, libraries, disk, hub access, and what to do.

    Libraries are imported in a process of their own, so that a broken one is only a line. Exit code
    1 if something is broken or missing that is needed.
    """
    from dataclasses import asdict

    from tunewright.cli_common import print_json
    from tunewright.terminal import printable
    from tunewright_env.checkup import findings

    found = []
    for finding in findings(network=not offline):
        found.append(finding)
        if not as_json:
            remedy = f" ({finding.remedy})" if finding.remedy else ""
            print(
                printable(f"{finding.state:8} {finding.area:10} {finding.text}{remedy}"), flush=True
            )
    problems = sum(finding.state == "problem" for finding in found)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        print(f"{problems} problems" if problems else "everything that is needed works")
    if problems:
        raise typer.Exit(1)
