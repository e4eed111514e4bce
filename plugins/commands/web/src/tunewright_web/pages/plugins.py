"""The page Plugins: what is installed, what is broken, and the options of each."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tunewright import registry
from tunewright.kinds import broken, kinds
from tunewright_web import work
from tunewright_web.errors import WebError
from tunewright_web.form import installed
from tunewright_web.page import Api, Call, Page, get, web_of
from tunewright_web.render import render

__all__ = ["PAGE"]


def _lines() -> dict[str, str]:
    """Kind and name of each plugin that cannot be imported → why."""
    form = installed()
    said = [*form.broken, *(line for each in form.sections.values() for line in each.broken)]
    return {"'".join(line.split("'", 2)[:2]) + "'": line for line in said}


def _facts(entry: registry.Entry, lines: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": entry.summary,
        "broken": lines.get(f"{entry.kind} {entry.name!r}", ""),
    }


def _listed(words: str = "") -> list[tuple[Any, list[dict[str, Any]]]]:
    lines, wanted, found = _lines(), words.lower().split(), []
    for kind in kinds().values():
        facts = [_facts(entry, lines) for entry in registry.entries(kind.name)]
        rows = [
            each
            for each in facts
            if all(
                word in f"{kind.name} {each['name']} {each['summary']}".lower() for word in wanted
            )
        ]
        if rows:
            found.append((kind, rows))
    return found


def _show(request: Request) -> Response:
    words = request.query_params.get("q", "")[:200]
    return render(
        request, "plugins.jinja", page="plugins", q=words, kinds=_listed(words), bad=dict(broken)
    )


def _one(request: Request) -> Response:
    kind, name = request.path_params["kind"], request.path_params["name"]
    names = [entry.name for entry in registry.entries(kind)] if kind in kinds() else []
    if name not in names:
        raise WebError("there is no such plugin", status=404)
    arguments = ["plugins", "info", f"{kind}:{name}", "--json"]
    root = web_of(request).workspace.root
    answer = work.ask(arguments, "", root, key=f"plugin {kind} {name}", seconds=60)
    found = answer.value[0] if answer.value else None
    return render(
        request,
        "plugin.jinja",
        page="plugins",
        kind=kind,
        name=name,
        found=found,
        said=answer.error,
    )


def _api(call: Call) -> dict[str, Any]:
    return {
        "plugins": [each for _, rows in _listed() for each in rows],
        "kinds_broken": dict(broken),
    }


PAGE = Page(
    "plugins",
    routes=(get("/plugins", _show), get("/plugins/{kind}/{name}", _one)),
    api=(Api("GET", "/plugins", _api, "Installed plugins, and what is broken."),),
)
