"""Change anything that prepared rows depend on, and they are made anew."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.running import TEMPLATE, chat_run, made, request, tokenizer, write
from tunewright.recipe import Recipe
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import RECIPE, FakeRun
from tunewright_dataset_chat import fingerprint


def with_accelerators(*sections: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, "accelerators": list(sections)})


def changes() -> dict[str, Callable[[Path], tuple[FakeRun, Any]]]:
    """What is changed → a run and a request in which it is."""

    def of(
        options: dict[str, Any] | None = None,
        template: str = TEMPLATE,
        entry: Any = None,
        train_on: Any = "all",
        accelerators: Any = (),
        **fields: Any,
    ) -> Any:
        def change(folder: Path) -> tuple[FakeRun, Any]:
            asked = request(folder, {"path": "a.jsonl", **(entry or {})}, **fields)
            run = chat_run(folder, template, cache="cache", **(options or {}))
            kind = type(run.plugins["template"])
            run.plugins["template"] = kind(kind.Options(train_on=train_on), "stub")
            run.recipe = with_accelerators(*accelerators)
            return run, asked

        return change

    def bytes_changed(folder: Path) -> tuple[FakeRun, Any]:
        file = folder / "a.jsonl"
        before = file.stat()
        write(file, "a", "x")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # size and time say nothing
        assert file.stat().st_size == before.st_size
        return of()(folder)

    more = copy.deepcopy(tokenizer())
    more.add_tokens(["zz"])
    marked = copy.deepcopy(tokenizer())
    marked.chat_template = "{{ messages }}"
    return {
        "bytes": bytes_changed,
        "template": of(template=TEMPLATE.replace("user", "human") + " "),
        "template's head": of(
            template='{#- tunewright\nthinking = ["<t>", "</t>"]\n-#}' + TEMPLATE
        ),
        "tokenizer": of(loaded=LoadedModel(None, more)),
        "chat template": of(loaded=LoadedModel(None, marked)),
        "max_length": of(max_length=199),
        "truncate": of({"truncate": "end"}),
        "on_bad_row": of({"on_bad_row": "skip"}),
        "limit": of(limit=1),
        "entry's limit": of(entry={"limit": 1}),
        "columns": of(entry={"columns": {"messages": "messages"}}),
        "tags": of(entry={"tags": {"user": "user"}}),
        "format": of(entry={"format": "shouting"}),
        "format's options": of(entry={"format": {"name": "shouting", "loud": True}}),
        "template's options": of(train_on="last"),
        "rows": of(rows="unpaired", entry={"format": "shouting"}),
        "accelerator": of(accelerators=[{"name": "marking"}]),
        "accelerator's options": of(accelerators=[{"name": "marking", "mark": "!"}]),
    }


OTHERS = """
from tunewright import Format, Plugin, PluginOptions, hookimpl
from tunewright.types import Conversation, Message, Unpaired

class Shouting(Format):
    rows = ("messages", "unpaired")

    class Options(PluginOptions):
        loud: bool = False

    @hookimpl
    def convert_rows(self, request):
        for origin, record in request.records:
            asked, answer = (
                Message(turn["role"], turn["content"].upper()) for turn in record["messages"]
            )
            if request.rows == "messages":
                yield Conversation([asked, answer], origin=origin)
            else:
                yield Unpaired([asked], [answer], True, origin=origin)

class Marking(Plugin):
    class Options(PluginOptions):
        mark: str = "?"

    @hookimpl(wrapper=True)
    def format_template(self):
        return (yield)

class Watching(Plugin):
    @hookimpl(wrapper=True)
    def train_stage(self):
        return (yield)
"""
POINTS = {
    "format": {"shouting": "others:Shouting"},
    "accelerator": {"marking": "others:Marking", "watching": "others:Watching"},
}


@pytest.fixture
def others(install: Any) -> None:
    """A format that is used where it is named, and accelerators."""
    install("others", POINTS, OTHERS)


@pytest.mark.parametrize("changed", changes())
@pytest.mark.usefixtures("others")
def test_what_changes_is_rebuilt(tmp_path: Path, changed: str) -> None:
    write(tmp_path / "a.jsonl", "a", "b")
    run = chat_run(tmp_path, cache="cache")
    assert made(run, request(tmp_path, "a.jsonl")) == 2
    assert made(run, request(tmp_path, "a.jsonl")) == 0
    run, asked = changes()[changed](tmp_path)
    assert made(run, asked) > 0
    assert made(run, asked) == 0


@pytest.mark.parametrize(
    ("one", "other"), [("format", "format's options"), ("accelerator", "accelerator's options")]
)
@pytest.mark.usefixtures("others")
def test_options_of_plugins_are_among_it(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path / "a.jsonl", "a", "b")
    for changed in (one, other):
        assert made(*changes()[changed](tmp_path)) > 0


@pytest.mark.usefixtures("others")
def test_an_accelerator_that_cannot_change_rows_rebuilds_nothing(tmp_path: Path) -> None:
    run, asked = (
        chat_run(tmp_path, cache="cache"),
        request(tmp_path, write(tmp_path / "a.jsonl", "a")),
    )
    assert made(run, asked) == 1
    run.recipe = with_accelerators("watching")
    assert made(run, asked) == 0


def test_new_code_rebuilds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = (
        chat_run(tmp_path, cache="cache"),
        request(tmp_path, write(tmp_path / "a.jsonl", "a")),
    )
    assert made(run, asked) == 1
    monkeypatch.setattr(fingerprint, "version", lambda name: "99")  # of the libraries
    assert made(run, asked) == 1
    monkeypatch.undo()
    assert made(run, asked) == 0


@pytest.mark.parametrize(
    ("shape", "files"),
    [("others.py", 1), ("others/__init__.py", 1), ("others/inner/more.py", 2)],
    ids=str,
)
@pytest.mark.parametrize("kind", ["format", "accelerator"])
def test_new_code_of_a_plugin_rebuilds(
    tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch, kind: str, shape: str, files: int
) -> None:
    """For a plugin that is one file, beside which others may be, and for a package."""
    write(tmp_path / "a.jsonl", "a")
    install("others", POINTS, OTHERS)
    if shape != "others.py":
        (tmp_path / "others").mkdir()
        (tmp_path / "others.py").rename(tmp_path / "others" / "__init__.py")
        (tmp_path / shape).parent.mkdir(exist_ok=True)
        (tmp_path / shape).touch()
    entry = {"path": "a.jsonl", **({"format": "shouting"} if kind == "format" else {})}
    run, asked = chat_run(tmp_path, cache="cache"), request(tmp_path, entry)
    run.recipe = with_accelerators(*["marking"] * (kind == "accelerator"))
    assert made(run, asked) == 1
    (tmp_path / "beside.py").touch()
    assert made(run, asked) == 0
    assert len(list(fingerprint._files("others"))) == files
    with (tmp_path / shape).open("a") as file:
        file.write("# new")
    assert made(run, asked) == 1
