"""The page Data: data files of the workspace, and uploads."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.data_files import data_files
from tunewright_web.errors import WebError
from tunewright_web.page import Form, Page, get, post, web_of
from tunewright_web.render import redirect, render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    web = web_of(request)
    rows = [
        (path, size, (web.workspace.root / path).stat().st_mtime, path.startswith("uploads/"))
        for path, size in data_files(web.workspace)
    ]
    return render(request, "data.jinja", page="data", rows=rows)


def _delete(request: Request, form: Form) -> Response:
    """Delete an upload; other files are the user's own."""
    web, path = web_of(request), form.get("path", "")
    file = web.workspace.readable(path)
    if file.parent != web.workspace.uploads.resolve() or not file.is_file():
        raise WebError(f"{path!r:.200} is no upload", status=403)
    Path(file).unlink()
    return redirect(request, "/data")


PAGE = Page(
    "data",
    routes=(get("/data", _show), post("/data/delete", _delete)),
)
