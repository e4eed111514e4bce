"""`tunewright plugins search` and `plugins install`: over the shipped tables of known plugins."""

import functools
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from importlib.machinery import PathFinder
from typing import Annotated, Any

import typer

from tunewright import __version__, compatibility, index, registry
from tunewright.cli_common import AsJson, print_json
from tunewright.errors import RecipeError, RunError, did_you_mean
from tunewright.terminal import printable

BUNDLE = "bundle"  # in the place of a kind: extras of the kernel
_BUNDLE_PREFIX = f"tunewright-{BUNDLE}-"
_NOT_OF_USERS = {"model_type"}  # tables that name no plugin


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Words that the name, kind or description has.", metavar="[WORD]..."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search the plugins of Tunewright, installed or not. Nothing is asked of the network."""
    wanted = [word.casefold() for word in words or []]
    found = [
        row
        for row in known_plugins()
        if all(word in " ".join(map(str, row.values())).casefold() for word in wanted)
    ]
    if as_json:
        print_json(found)
        return
    for row in found:
        state = "installed" if row["installed"] else ""
        name, owner = f"{row['kind']:12} {row['name']:18}", f"{row['distribution']:34}"
        print(printable(f"{name} {owner} {state:9} {row['summary']}"))
    if not found:
        raise RecipeError(
            f"no known plugin has {' '.join(wanted)!r}", hint="tunewright plugins search"
        )


def _completions(incomplete: str) -> list[str]:
    """Names of known plugins and bundles, for completion by the shell."""
    plugins = known_plugins()
    names = {row["name"] for row in plugins if row["kind"] != BUNDLE}
    names |= {f"{BUNDLE}:{row['name']}" for row in plugins if row["kind"] == BUNDLE}
    return sorted(name for name in names if name.startswith(incomplete))


def install(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="A plugin's name, KIND:NAME, bundle:NAME or a distribution of Tunewright.",
            metavar="[NAME]...",
            autocompletion=_completions,
        ),
    ] = None,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="Upgrade; without a name, every plugin that is too old."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the command, and do not run it.")
    ] = False,
) -> None:
    """Install plugins of Tunewright with pip, in versions for this kernel.

    The command is shown before it runs. `tunewright plugins search` lists the names. Plugins of
    others are installed with pip itself.

    \b
    Examples:
      tunewright plugins install llama dpo           the distributions of a family and a stage
      tunewright plugins install bundle:vision       as pip install "tunewright[vision]"
      tunewright plugins install --upgrade           what is too old for this kernel
    """
    asked = names or (compatibility.outdated() if upgrade else [])
    if not asked:
        hint = (
            "every plugin fits this kernel" if upgrade else "tunewright plugins search lists them"
        )
        raise RecipeError("no plugin is named", hint=hint)
    wanted = list(dict.fromkeys(_distribution(name) for name in asked))
    for name in wanted:
        if env := distributions().get(name, {}).get("env"):
            print(f"note: the libraries of {name} have an environment: tunewright env create {env}")
    command = [*_installer(), *(["--upgrade"] if upgrade else []), *map(_in_range, wanted)]
    print(f"$ {subprocess.list2cmdline(command)}", flush=True)
    if not dry_run and (code := subprocess.run(command, check=False).returncode):
        raise RunError(f"the command above ended with exit code {code}", place="plugins install")


@functools.cache
def distributions() -> dict[str, dict[str, str]]:
    """Distributions of Tunewright → summary, and the environment of their libraries if any."""
    text = resources.files("tunewright").joinpath("distributions.toml").read_text("utf-8")
    return tomllib.loads(text)


def known_plugins() -> list[dict[str, Any]]:
    """Every known plugin and bundle: kind, name, distribution, summary, and if it is installed."""
    tables = registry.shipped_table()["known"]
    rows = [
        (kind, name, distribution)
        for kind, table in tables.items()
        if kind not in _NOT_OF_USERS
        for name, distribution in table.items()
    ]
    bundles = [name for name in distributions() if name.startswith(_BUNDLE_PREFIX)]
    rows += [(BUNDLE, name.removeprefix(_BUNDLE_PREFIX), name) for name in bundles]
    there = {point.distribution for point in index.points()}
    return [
        {
            "kind": kind,
            "name": name,
            "distribution": distribution,
            "installed": distribution in there,
            "summary": distributions().get(distribution, {}).get("summary", ""),
        }
        for kind, name, distribution in rows
    ]


def _distribution(name: str) -> str:
    """The distribution that has a plugin. Raises RecipeError for an unknown or ambiguous name."""
    if name in distributions() or name in compatibility.versions():
        return name
    if extra := re.fullmatch(r"tunewright\[([a-z]+)\]", name):
        name = f"{BUNDLE}:{extra[1]}"
    kind, _, bare = name.rpartition(":")
    plugins = known_plugins()
    rows = [row for row in plugins if row["name"] == bare and kind in ("", row["kind"])]
    owners = {row["distribution"] for row in rows}
    if len(owners) == 1:
        return str(owners.pop())
    if owners:
        choice = " or ".join(f"{row['kind']}:{bare}" for row in rows)
        raise RecipeError(f"several plugins are called {bare!r}", hint=f"write {choice}")
    near = did_you_mean(bare, {row["name"] for row in plugins})
    near = near if near.startswith("did you mean") else "tunewright plugins search"
    hint = f"{near}; a plugin of others is installed with pip itself"
    raise RecipeError(f"no plugin of Tunewright is called {name!r:.80}", hint=hint)


def _in_range(distribution: str) -> str:
    """A requirement on a distribution; of ours, the minor version of this kernel: another one would
    replace the kernel under all other plugins."""
    major, minor = __version__.split(".")[:2]
    return f"{distribution}=={major}.{minor}.*" if distribution in distributions() else distribution


def _installer() -> list[str]:
    """The command that installs into the environment of this Python. Raises RecipeError."""
    # on the path alone: setuptools would warn of what it does when pip is looked for
    if PathFinder.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise RecipeError("this environment has no pip", hint=f"{sys.executable} -m ensurepip")
