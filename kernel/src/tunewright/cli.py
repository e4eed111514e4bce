"""The command line: the kernel's own verbs; all others are plugins of kind `command`.

Listing verbs reads metadata only: a command's module is imported when it is called.
"""

import os
import sys
from collections.abc import Callable, Container, Sequence
from typing import Annotated

import typer

from tunewright import __version__, cli_plugins, cli_recipe, registry
from tunewright.cli_common import AsJson, Overrides, RecipePath, TrustRemoteCode, print_json
from tunewright.errors import RecipeError
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
    trust_remote_code: TrustRemoteCode = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Do not start where a plan says that memory is short.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a launcher would start, and end.")
    ] = False,
) -> None:
    """Train as a recipe says.

    The output folder gets the trained model, checkpoints, metrics, the loss curve and the recipe
    with all defaults. Ctrl-C saves a checkpoint and ends with exit code 130; --resume continues.

    \b
    Examples:
      tunewright train recipe.yaml --smoke               a few steps on a tiny model
      tunewright train recipe.yaml training.epochs=3     with another value
      tunewright train recipe.yaml --resume              from the last checkpoint
    """
    from tunewright import check, launch, launch_failure, run

    told = launch_failure.telling_others(recipe, overrides or [])
    with launch_failure.telling_launcher(), told:
        launch.check_variables()
        # check that data sources exist before anything is loaded, in one process only
        resolved = check.resolve(recipe, overrides or [], look="RANK" not in os.environ)
        if smoke:
            resolved, overwrite, resume = run.smoke(resolved), True, False
    if launch.is_wanted(resolved):
        return launch.start(resolved, sys.argv[1:], dry_run=dry_run)
    if dry_run:
        raise RecipeError("--dry-run shows what a launcher starts, and here is one process")
    launch.end_with_parent()
    with launch_failure.telling_launcher():
        run.train(
            resolved,
            resume=resume,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
            limit=32 if smoke else None,
            strict=strict,
        )


def env(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """Print versions of Python, the libraries and the plugins, for bug reports."""
    import yaml

    from tunewright import folder

    if context.invoked_subcommand:
        return
    if as_json:
        print_json(folder.versions())
    else:
        print(yaml.safe_dump(folder.versions(), sort_keys=False), end="")


def version() -> None:
    """Print the kernel's version."""
    print(__version__)


def _print_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the kernel's version."
        ),
    ] = False,
) -> None:
    pass


#: the end of the help
NOTES = """\b
With any command:
  --debug   show the traceback of an error

\b
Exit codes:
  0 success, 1 the run failed, 2 the recipe or the command is wrong, 130 stopped by Ctrl-C

\b
Environment variables:
  TUNEWRIGHT_CACHE   folder of prepared data and other caches, in place of ~/.cache/tunewright
  TUNEWRIGHT_ENVS    folder of environments (tunewright env create)
  HF_HOME, HF_TOKEN, HF_HUB_OFFLINE   the hub's cache, token, and 1 to use only the cache

Begin with: tunewright recipe new; tunewright env doctor says what works on this machine.
"""


#: the kernel's verbs: group ("" for none) → its help, and verb → function
VERBS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "": (
        "Fine-tune large language models. One recipe, one command; everything else is a plugin.",
        {"train": train, "version": version},
    ),
    "env": (str(env.__doc__), {}),
    "recipe": (cli_recipe.HELP, cli_recipe.VERBS),
    "plugins": (cli_plugins.HELP, cli_plugins.VERBS),
}
#: groups that do something without a verb
ALONE: dict[str, Callable[..., None]] = {"env": env}


def build(
    called: Sequence[str] | None = None, distributions: Container[str] | None = None
) -> typer.Typer:
    """The command line: the kernel's verbs and those of installed plugins.

    called: the words of the command that was called. Its verb is imported; all others have only a
    line of help. None imports every verb. distributions: whose verbs are included; None: all. A
    plugin called `recipe.new` is the verb `new` of the group `recipe`.
    """
    groups = {}
    for group, (about, verbs) in VERBS.items():
        groups[group] = typer.Typer(
            help=about,
            add_completion=not group,  # of all verbs, once: it costs a few milliseconds
            epilog=NOTES if not group else None,
            no_args_is_help=group not in ALONE,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            suggest_commands=False,
        )
        if group in ALONE:
            groups[group].callback(invoke_without_command=True)(ALONE[group])
        for verb, function in verbs.items():
            groups[group].command(verb)(function)
    groups[""].callback()(root)
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
        if is_called:
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


def _words() -> list[str]:
    """Words of the command line; those before the cursor, when a shell asks for completions."""
    if "_TUNEWRIGHT_COMPLETE" not in os.environ:
        return sys.argv[1:]
    # bash gives COMP_WORDS, the other shells the text of the line
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def main() -> None:
    """Entry point of the command line. User errors are one line; `--debug` shows the traceback."""
    # pydantic would look for plugins of its own in all installed distributions: a tenth of a check
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from tunewright.cli_main import ended

    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]

    def call() -> object:
        app = build([word for word in _words() if not word.startswith("-")])
        return app(standalone_mode=False, prog_name="tunewright")

    code = ended(call, debug)
    if code:  # now that the error is printed, as it may take time
        from tunewright.launch_failure import tell_now

        tell_now()
    sys.exit(code)
