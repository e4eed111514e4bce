"""The command line. The kernel's own verbs stand here; all others are plugins of kind `command`.

Listing verbs reads metadata only: a command's module is imported when it was called.
"""

import gc
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Container, Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from tunewright import __version__, cli_plugins, cli_recipe, registry
from tunewright.cli_common import Overrides, RecipePath, print_json
from tunewright.errors import RecipeError, TunewrightError
from tunewright.terminal import printable


def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in the output.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that the output holds.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Try every part on a tiny model of the same architecture."),
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
) -> None:
    """Train as a recipe says."""
    from tunewright import check, run

    # data sources are looked for before anything is loaded, and by one process
    resolved = check.resolve(recipe, overrides or [], look="RANK" not in os.environ)
    if smoke:
        resolved, overwrite, resume = run.smoke(resolved), True, False
    launch = resolved.recipe.launch
    if "RANK" not in os.environ and launch.processes * launch.nodes > 1:
        raise typer.Exit(_launch(launch))
    run.train(
        resolved,
        resume=resume,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        limit=32 if smoke else None,
    )


def _launch(launch: Any) -> int:
    """Start this same command line on several processes, through torchrun."""
    rendezvous = [f"--master-addr={launch.main_address}", f"--master-port={launch.main_port}"]
    size = [
        f"--nproc-per-node={launch.processes}",
        f"--nnodes={launch.nodes}",
        f"--node-rank={launch.node_rank}",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    command = [*torchrun, *size, *rendezvous, "-m", "tunewright", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


def env(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions of Python, the libraries and the plugins, for bug reports."""
    import yaml

    from tunewright import folder

    if as_json:
        print_json(folder.versions())
    else:
        print(yaml.safe_dump(folder.versions(), sort_keys=False), end="")


def version() -> None:
    """Print the kernel's version."""
    print(__version__)


#: the kernel's verbs: group ("" for none) → its help, and verb → function
VERBS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "": (
        "Fine-tune large language models. One recipe, one command; everything else is a plugin.",
        {"train": train, "env": env, "version": version},
    ),
    "recipe": (cli_recipe.HELP, cli_recipe.VERBS),
    "plugins": (cli_plugins.HELP, cli_plugins.VERBS),
}


def build(
    called: Sequence[str] | None = None, distributions: Container[str] | None = None
) -> typer.Typer:
    """The command line: the kernel's verbs and those of installed plugins.

    called: the words of the command that was called. Its verb is imported, of all others only a
    line of help is there; None imports every verb. distributions: whose verbs are wanted; None: of
    all. A plugin called `recipe.new` is the verb `new`
    of the group `recipe`.
    """
    groups = {}
    for group, (about, verbs) in VERBS.items():
        groups[group] = typer.Typer(
            help=about,
            add_completion=False,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )
        for verb, function in verbs.items():
            groups[group].command(verb)(function)
    for entry in registry.entries("command"):
        if distributions is None or entry.distribution in distributions:
            _add(groups, entry, called)
    for group in VERBS:
        if group:
            groups[""].add_typer(groups[group], name=group)
    return groups[""]


def _add(
    groups: dict[str, typer.Typer], entry: registry.Entry, called: Sequence[str] | None
) -> None:
    """Add a plugin's verb, unless the kernel has it."""
    group, _, verb = entry.name.rpartition(".")
    words = [group, verb] if group else [verb]
    is_called = called is not None and list(called[: len(words)]) == words
    if group not in VERBS or verb in VERBS[group][1] or (not group and verb in VERBS):
        if called is not None and called[:1] == [verb]:
            problem = f"{entry.distribution} claims the verb {entry.name!r}, which is the kernel's"
            print(f"warning: {printable(problem)}: it is ignored", file=sys.stderr)
        return
    if called is not None and not is_called:
        groups[group].command(verb, help=printable(entry.summary))(lambda: None)
        return
    found = registry.load(registry.find("command", entry.name))
    if isinstance(found, typer.Typer):
        groups[group].add_typer(found, name=verb)
    else:
        groups[group].command(verb)(found)


def main() -> None:
    """The entry point. A user's mistake is one line; `--debug` shows where it was noticed."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show what data holds
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app = build([argument for argument in sys.argv[1:] if not argument.startswith("-")])
        code = app(standalone_mode=False)
        _flush()
        sys.exit(code if isinstance(code, int) else 0)
    except TunewrightError as error:
        _fail(str(error), error.exit_code, debug)
    except TyperException as error:
        _fail(_usage(error), 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 130, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains at its end
        sys.exit(1)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        hint = "this is a defect, or a library's own error; --debug shows where"
        _fail(f"{message} ({hint})", 1, debug)


def _usage(error: TyperException) -> str:
    """A mistake on the command line as one line; help, where a group was called without a verb."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        sys.exit(2)
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "tunewright"
    return str(RecipeError(message[:1].lower() + message[1:], hint=f"see {path} --help"))


def _flush() -> None:
    """Raises RecipeError where the output cannot be written, as on a full disk."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise TunewrightError(f"standard output cannot be written: {error}") from error


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    text = "\n".join(f"error: {printable(line)}" for line in message.splitlines())
    if sys.stderr is not None:
        print(text, file=sys.stderr)
    sys.exit(code)
