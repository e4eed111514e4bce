"""The verbs of `tunewright plugins`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tunewright import cli_install, registry
from tunewright.cli_common import AsJson, print_json
from tunewright.errors import RecipeError
from tunewright.kinds import Kind, kind_of, kinds
from tunewright.terminal import printable

HELP = "List, search, install, describe and check plugins."


def list_(
    kind: Annotated[str, typer.Option(help="Only plugins of this kind.")] = "",
    as_json: AsJson = False,
) -> None:
    """List installed plugins: kind, name, distribution, summary."""
    chosen: list[Kind] = [kind_of(kind)] if kind else list(kinds().values())
    entries = [entry for each in chosen for entry in registry.entries(each.name)]
    if as_json:
        print_json([_facts(entry) for entry in entries])
        return
    for entry in entries:
        owner = f"{entry.distribution} {entry.version}"
        print(printable(f"{entry.kind:12} {entry.name:14} {owner:32} {entry.summary}"))


def _facts(entry: registry.Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": entry.summary,
    }


def _find(name: str) -> list[registry.Entry]:
    """Every plugin called `name`, `distribution:name` or `kind:name`."""
    before, _, bare = name.rpartition(":")
    among = [before] if before in kinds() else list(kinds())
    found = [
        entry
        for kind in among
        for entry in registry.entries(kind)
        if entry.name == bare and before in ("", kind, entry.distribution)
    ]
    if not found:
        hint = "tunewright plugins list shows them"
        raise RecipeError(f"no installed plugin is called {name!r}", hint=hint)
    return found


def _installed(incomplete: str) -> list[str]:
    """Names of installed plugins, for completion by the shell."""
    names = {entry.name for kind in kinds() for entry in registry.entries(kind)}
    return sorted(name for name in names if name.startswith(incomplete))


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A plugin's name, or kind:name.", metavar="NAME", autocompletion=_installed
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Describe a plugin and its options with their defaults."""
    from pydantic_core import to_jsonable_python

    from tunewright.descriptions import described

    found = []
    for entry in _find(name):
        plugin = registry.load(entry)
        about = {**_facts(entry), "description": (plugin.__doc__ or entry.summary).strip()}
        if entry.kind != "command":
            texts = described(plugin.Options)
            about["options"] = {
                key: {
                    "required": field.is_required(),
                    "default": None
                    if field.is_required()
                    else to_jsonable_python(
                        field.get_default(call_default_factory=True), fallback=str
                    ),
                    "description": texts.get(key, ""),
                }
                for key, field in plugin.Options.model_fields.items()
            }
            about["deviations"] = plugin.deviations
        found.append(about)
    if as_json:
        print_json(found)
    else:
        for about in found:
            _print(about)


def _print(about: dict[str, Any]) -> None:
    owner = f"{about['distribution']} {about['version']}"
    print(printable(f"{about['kind']} {about['name']}, from {owner}\n\n{about['description']}"))
    if "options" not in about:
        return
    print("\noptions:" if about["options"] else "\nno options")
    for key, option in about["options"].items():
        default = "required" if option["required"] else json.dumps(option["default"], default=str)
        print(printable(f"  {key} ({default}): {option['description']}"))
    for test, reason in about["deviations"].items():
        print(printable(f"deviates in {test}: {reason}"))


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Plugins to test. Without a name, all are imported.",
            metavar="[NAME]...",
            autocompletion=_installed,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for the import of one plugin.")] = 60,
    report: Annotated[
        Path | None,
        typer.Option(help="JSON file to write: the results, versions and SHA-256 of the plugins."),
    ] = None,
) -> None:
    """Import plugins, each in a process of its own, and run the conformance suite on named ones.

    --report FILE.json writes which tests passed with which versions, and FILE.md for people. It
    holds the SHA-256 of the packages that were tested, and is not signed.
    """
    from tunewright.import_check import imported
    from tunewright.kinds import broken as bad_kinds

    if report and (not names or report.suffix != ".json"):
        hint = "tunewright plugins check NAME --report NAME.json"
        raise RecipeError("--report takes plugins to test and a file .json", hint=hint)
    every = [entry for kind in kinds() for entry in registry.entries(kind)]
    entries = [entry for name in names for entry in _find(name)] if names else every
    broken = 0
    for name, problem in bad_kinds.items():
        broken += 1
        print(f"broken: {printable(f'kind {name!r} of {problem}')}", file=sys.stderr)
    for _, problem in imported(entries, timeout):
        if problem:
            broken += 1
            print(f"broken: {printable(problem)}", file=sys.stderr)
    print(f"{len(entries) - broken + len(bad_kinds)} of {len(entries)} plugins can be imported")
    suites = registry.group("check") if names else []
    if names and not suites:
        hint = "pip install tunewright-conformance"
        raise RecipeError("no conformance suite is installed", hint=hint)
    asked = [f"{entry.kind}:{entry.name}" for entry in entries]
    more = {"report": report} if report else {}
    failed = [suite for suite in suites if suite.load()(asked, **more)]
    if broken or failed:
        raise typer.Exit(1)


VERBS: dict[str, Callable[..., None]] = {
    "list": list_,
    "search": cli_install.search,
    "install": cli_install.install,
    "info": info,
    "check": check,
}
