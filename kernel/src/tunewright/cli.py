"""The command line. The kernel's own verbs stand here; every other one is a plugin of kind
`command`.

Listing verbs reads metadata only: a command's module is imported when it is the one that was
called.
"""

import gc
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright import __version__, registry
from tunewright.errors import RecipeError, TunewrightError
from tunewright.terminal import printable

app = typer.Typer(
    help="Fine-tune large language models. One recipe, one command; everything else is a plugin.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
plugins_app = typer.Typer(
    help="Look at the installed plugins, and check them.", no_args_is_help=True
)
recipe_app = typer.Typer(
    help="Check a recipe, show what it means, or print its schema.", no_args_is_help=True
)
app.add_typer(plugins_app, name="plugins")
app.add_typer(recipe_app, name="recipe")

RecipePath = Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="what to change in it, such as training.epochs=3", metavar="[KEY=VALUE]..."
    ),
]
Kind = Annotated[str, typer.Option(help="only plugins of this kind")]


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the last checkpoint in the output")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the run that the output holds")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="try all parts on the family's tiny twin, a few steps")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run Python code that comes with the model")
    ] = False,
) -> None:
    """Train as a recipe says."""
    from tunewright import check, run

    read, source = check.read(recipe, overrides)
    if smoke:
        read, overwrite, resume = run.smoke(read), True, False
    if "RANK" not in os.environ:
        check.check(read, source, look=True)  # before anything is loaded, and by one process
        if read.launch.processes * read.launch.nodes > 1:
            raise typer.Exit(_launch(read.launch))
    limit = 32 if smoke else None
    run.train(
        read,
        source,
        resume=resume,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        limit=limit,
    )


def _launch(launch: Any) -> int:
    """This same command line on several processes, through torchrun."""
    rendezvous = [f"--master-addr={launch.main_address}", f"--master-port={launch.main_port}"]
    size = [
        f"--nproc-per-node={launch.processes}",
        f"--nnodes={launch.nodes}",
        f"--node-rank={launch.node_rank}",
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *size,
        *rendezvous,
        "-m",
        "tunewright",
        *sys.argv[1:],
    ]
    return subprocess.run(command, check=False).returncode


@plugins_app.command("list")
def plugins_list(kind: Kind = "") -> None:
    """Every installed plugin: kind, name, distribution, what it is."""
    if kind and kind not in registry.KINDS:
        raise RecipeError(
            f"found kind {kind!r}, expected one of {', '.join(registry.KINDS)}",
            place="command line",
        )
    entries = [
        entry for each in ([kind] if kind else registry.KINDS) for entry in registry.entries(each)
    ]
    for entry in entries:
        print(
            f"{entry.kind:12} {entry.name:14} "
            f"{entry.distribution + ' ' + entry.version:32} {entry.summary}"
        )


def _find(name: str) -> list[registry.Entry]:
    """Every plugin called `name`, `distribution:name` or `kind:name`."""
    before, _, bare = name.rpartition(":")
    kinds = [before] if before in registry.KINDS else registry.KINDS
    found = [
        e
        for kind in kinds
        for e in registry.entries(kind)
        if e.name == bare and before in ("", kind, e.distribution)
    ]
    if not found:
        raise RecipeError(
            f"no installed plugin is called {name!r}", hint="tunewright plugins list shows them"
        )
    return found


@plugins_app.command("info")
def plugins_info(
    name: Annotated[str, typer.Argument(help="a plugin's name, or kind:name")],
) -> None:
    """What a plugin is, and its options with defaults."""
    from tunewright.plugin import described

    for entry in _find(name):
        plugin = registry.load(entry)
        print(f"{entry.kind} {entry.name}, from {entry.distribution} {entry.version}\n")
        print((plugin.__doc__ or entry.summary).strip())
        if entry.kind == "command":
            continue
        fields, about = plugin.Options.model_fields, described(plugin.Options)
        print("\noptions:" if fields else "\nno options")
        for key, field in fields.items():
            preset = field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else json.dumps(preset, default=str)
            print(f"  {key} ({default}): {about.get(key, '')}")
        for test, reason in plugin.deviations.items():
            print(f"deviates in {test}: {reason}")


@plugins_app.command("check")
def plugins_check(
    names: Annotated[
        list[str] | None, typer.Argument(help="plugins to test; without one, all are imported")
    ] = None,
) -> None:
    """Import plugins, each on its own, and run the conformance suite on those that are named."""
    whole = [entry for kind in registry.KINDS for entry in registry.entries(kind)]
    entries = [entry for name in names for entry in _find(name)] if names else whole
    broken = 0
    for entry in entries:
        try:
            registry.load(registry.find(entry.kind, entry.qualified))
        except TunewrightError as error:
            broken += 1
            print(f"broken: {error}", file=sys.stderr)
    print(f"{len(entries) - broken} of {len(entries)} plugins can be imported")
    suites = list(registry.group("check")) if names else []
    if names and not suites:
        raise RecipeError(
            "no conformance suite is installed", hint="pip install tunewright-conformance"
        )
    failed = [suite for suite in suites if suite.load()([f"{e.kind}:{e.name}" for e in entries])]
    if broken or failed:
        raise typer.Exit(1)


@recipe_app.command("check")
def recipe_check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Check a recipe against the plugins that it names. Nothing is loaded."""
    from tunewright import check, context

    read, source = check.read(recipe, overrides)
    if check.check(read, source, look=True).family is None and Path(read.model).exists():
        context.detect_family(read)
    print(f"{recipe}: good")


@recipe_app.command("show")
def recipe_show(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Print a recipe with every default written out."""
    import yaml

    from tunewright import check

    whole = check.check(*check.read(recipe, overrides)).as_dict()
    print(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), end="")


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print a JSON schema of recipes, made from the installed plugins, for editors."""
    from tunewright import schema

    print(json.dumps(schema.schema(), indent=1))


@app.command()
def env() -> None:
    """Versions of Python, the libraries and the plugins: what a report of a problem should hold."""
    import yaml

    from tunewright import folder

    print(yaml.safe_dump(folder.versions(), sort_keys=False), end="")


@app.command()
def version() -> None:
    """The kernel's version."""
    print(__version__)


def _add_commands(called: str) -> None:
    """Add the verbs of installed plugins: the one that is called as it is, the others as a line of
    help."""
    for entry in registry.entries("command"):
        if entry.name != called:
            app.command(entry.name, help=entry.summary)(lambda: None)
            continue
        found = registry.load(registry.find("command", called))
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=called)
        else:
            app.command(called)(found)


def main() -> None:
    """The entry point. A user's mistake is one line; `--debug` shows where it was noticed."""
    gc.set_threshold(
        100_000
    )  # imports make many objects and no garbage: a tenth of the time of verbs that only look
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal can show what data holds
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        _add_commands(
            next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        )
        app()
    except TunewrightError as error:
        _fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        _fail(
            f"{message} (this is a defect, or a library's own error; --debug shows where)", 1, debug
        )


def _fail(message: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print("\n".join(f"error: {printable(line)}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(code)
