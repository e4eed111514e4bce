"""Tests specific to this panel. `tunewright plugins check` tests what is common to the kind."""

from pathlib import Path

import jinja2
import pytest
from tunewright_notes import Notes

from tunewright_web.errors import WebError
from tunewright_web.jobs import Jobs
from tunewright_web.panels import Context
from tunewright_web.run import Run
from tunewright_web.runs import Runs
from tunewright_web.words import Words
from tunewright_web.workspace import Workspace


@pytest.fixture
def context(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path)
    jobs = Jobs(workspace)
    run = Run("one", tmp_path, "completed")
    loaded = jinja2.Environment(loader=jinja2.PackageLoader("tunewright_notes"), autoescape=True)
    words = Words("en")
    return Context(run, Runs(workspace, jobs), jobs, workspace, words, "/x/notes", loaded)


def test_notes_are_kept_and_shown_as_text(context: Context, tmp_path: Path) -> None:
    notes = Notes(Notes.Options(), "notes")
    notes.act(context, "save", {"text": "a <b>\r\nline"})
    assert (tmp_path / "notes.txt").read_text() == "a <b>\nline"
    assert "a &lt;b&gt;\nline</textarea>" in notes.show(context)


def test_what_is_too_long_is_refused(context: Context) -> None:
    with pytest.raises(WebError, match="at most 20,000"):
        Notes(Notes.Options(), "notes").act(context, "save", {"text": "x" * 20_001})
