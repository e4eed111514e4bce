"""Tests of every panel of the web workbench: it renders, and its HTML fits the policy."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
import pytest

from tunewright.registry import Entry, load
from tunewright_conformance.suite import Suite
from tunewright_web.errors import WebError
from tunewright_web.jobs import Jobs
from tunewright_web.panels import Context, Panel
from tunewright_web.runs import Runs
from tunewright_web.words import LANGUAGES, Words
from tunewright_web.workspace import Workspace

#: attributes whose address is loaded or sent to
_LOADS = ("src", "srcset", "data", "action", "formaction", "poster")
_FIELDS = ("input", "select", "textarea")


class Found(HTMLParser):
    """Parts that the workbench's policy would block, or that a screen reader could not read."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._labelled: set[str] = set()
        self._fields: list[tuple[str, str]] = []
        self._in_label = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        shown = self.get_starttag_text() or tag
        if tag in ("style", "iframe", "object", "embed", "base", "meta"):
            self.problems.append(f"{shown}: a panel has no <{tag}>")
        if tag == "script" and "src" not in given:
            self.problems.append(f"{shown}: an inline script is blocked")
        for name in given:
            if name == "style" or name.startswith(("on", "hx-on")):
                self.problems.append(f"{shown}: the attribute {name} is blocked")
        loaded = [given[name] for name in _LOADS if name in given]
        loaded += [given["href"]] if tag == "link" and "href" in given else []
        if any(urlsplit(address).netloc for address in loaded):
            self.problems.append(f"{shown}: nothing is loaded from another host")
        if tag == "img" and "alt" not in given:
            self.problems.append(f"{shown}: a picture needs alt")
        self._note_labels(tag, given, shown)

    def _note_labels(self, tag: str, given: dict[str, str], shown: str) -> None:
        if tag == "label":
            self._in_label += 1
            self._labelled.add(given.get("for", ""))
        is_field = tag in _FIELDS and given.get("type") not in ("hidden", "submit")
        if is_field and not self._in_label and not given.keys() & {"aria-label", "aria-labelledby"}:
            self._fields.append((given.get("id", ""), shown))

    def handle_endtag(self, tag: str) -> None:
        self._in_label -= tag == "label"

    def close(self) -> None:
        super().close()
        for name, shown in self._fields:
            if not name or name not in self._labelled:
                self.problems.append(f"{shown}: a field needs a label")


class TestPanel(Suite):
    kinds = ("panel",)

    @pytest.fixture
    def panel(self, entry: Entry) -> Panel:
        kind = load(entry)
        made: Panel = kind(kind.Options(), entry.name)
        return made

    @pytest.fixture
    def runs(self, tmp_path: Path) -> Runs:
        """An empty run, one that runs, and one that is done."""
        workspace = Workspace(tmp_path)
        workspace.create()
        for name, status in (("empty", "running"), ("live", "running"), ("done", "completed")):
            folder = workspace.runs / name
            folder.mkdir()
            recipe = {"model": "tiny", "adapter": {"name": "lora"}, "stages": [{"name": "sft"}]}
            state = {"status": status, "stages": [], "recipe": recipe}
            (folder / "run.json").write_text(json.dumps(state))
            if name != "empty":
                (folder / "events.jsonl").write_text("".join(_events()))
        return Runs(workspace, Jobs(workspace, ()))

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_shows(self, panel: Panel, runs: Runs, language: str, tmp_path: Path) -> None:
        """It shows an empty, a running and a finished run, or a page of its own; the same twice;
        and writes nothing."""
        before = _files(tmp_path)
        for context in _contexts(panel, runs, tmp_path, language):
            made = panel.show(context)
            assert hasattr(made, "__html__"), "show gives text, expected markupsafe.Markup"
            assert panel.show(context) == made
            found = Found()
            found.feed(made)
            found.close()
            assert not found.problems, "\n".join(found.problems)
        assert _files(tmp_path) == before

    def test_label(self, panel: Panel) -> None:
        """It has a label, and a place that there is."""
        assert panel.label
        assert panel.place in ("nav", "run", "new")

    def test_unknown_action(self, panel: Panel, runs: Runs, tmp_path: Path) -> None:
        """An action that it does not know is refused, and changes nothing."""
        before = _files(tmp_path)
        with pytest.raises(WebError):
            panel.act(_contexts(panel, runs, tmp_path, "en")[0], "no-such-action", {})
        assert _files(tmp_path) == before


def _contexts(panel: Panel, runs: Runs, root: Path, language: str) -> list[Context]:
    workspace = Workspace(root)
    loaded = None
    if panel.templates:
        package = type(panel).__module__.partition(".")[0]
        loader = jinja2.PackageLoader(package, panel.templates)
        loaded = jinja2.Environment(loader=loader, autoescape=True)
    words = Words(language, panel.words.get(language))
    on = [run for run in runs.all() if panel.shows(run)] if panel.place == "run" else [None]
    address, jobs = f"/x/{panel.name}", Jobs(workspace, ())
    found = [Context(run, runs, jobs, workspace, words, address, loaded) for run in on]
    if panel.place == "new":  # an empty draft, and one with something in it
        recipes: tuple[dict[str, Any], ...] = ({}, {"model": "tiny", "stage": {"name": "sft"}})
        found = [replace(found[0], recipe=recipe) for recipe in recipes]
    return found


def _events() -> list[str]:
    started = {"event": "StageStarted", "time": 1.0, "stage": "sft", "number": 1, "of": 1}
    logged = {"event": "Logged", "time": 2.0, "stage": "sft", "step": 1, "total_steps": 9}
    return [
        json.dumps({"event": "RunStarted", "time": 1.0}) + "\n",
        json.dumps(started | {"total_steps": 9, "first_step": 0}) + "\n",
        json.dumps(logged | {"metrics": {"loss": 1.0}}) + "\n",
    ]


def _files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
