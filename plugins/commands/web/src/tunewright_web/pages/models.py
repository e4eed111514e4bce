"""The page Models: folders of the workspace, and the checkpoints that families list."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web import checkpoints
from tunewright_web.page import Page, get, web_of
from tunewright_web.render import render, words_of

__all__ = ["PAGE"]

_MOST = 60  # rows of a page


def _show(request: Request) -> Response:
    words, family = (request.query_params.get(name, "")[:200] for name in ("q", "family"))
    found = checkpoints.search(words, family)
    families = [(name, name) for name in sorted({each["family"] for each in checkpoints.listed()})]
    return render(
        request,
        "models.jinja",
        page="models",
        q=words,
        family=family,
        families=[("", words_of(request)("All")), *families],
        rows=found[:_MOST],
        count=len(found),
        folders=[
            (folder, checkpoints.find(folder, web_of(request).workspace))
            for folder in checkpoints.folders(web_of(request).workspace)
        ],
    )


PAGE = Page("models", routes=(get("/models", _show),))
