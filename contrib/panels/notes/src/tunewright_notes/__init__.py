"""Notes on a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from tunewright_web.errors import WebError
from tunewright_web.panels import Context, Panel
from tunewright_web.workspace import write_file

_LONGEST = 20_000  # characters


class Notes(Panel):
    """A text on each run, kept in notes.txt in the run folder."""

    place = "run"
    label = "Notes"
    templates = "templates"
    words: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "zh": {"Notes": "笔记", "Save": "保存", "What was tried, and what came of it": "尝试与结果"}
    }

    def show(self, context: Context) -> Markup:
        return context.render("notes.jinja", text=_read(_file(context)))

    def act(self, context: Context, action: str, form: Mapping[str, str]) -> None:
        if action != "save":
            return super().act(context, action, form)
        text = form.get("text", "")
        if len(text) > _LONGEST:
            raise WebError(f"notes: at most {_LONGEST:,} characters", status=422)
        write_file(_file(context), text.replace("\r\n", "\n"))


def _file(context: Context) -> Path:
    assert context.run is not None  # it is a tab of runs only
    return context.run.folder / "notes.txt"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")[:_LONGEST]
    except (OSError, ValueError):
        return ""
