"""Golden files: of our own plugins here, of others in a folder `goldens` of their own package."""

import json
from dataclasses import dataclass
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from tunewright.errors import RowError
from tunewright.registry import Entry, PluginCaller
from tunewright_conformance.cases import Renderer, cases
from tunewright_conformance.subjects import package_of


@dataclass
class Official:
    """Official template of a model. differs: case → reason for a different text."""

    source: str
    differs: dict[str, str]


def _file(entry: Entry, suffix: str) -> Traversable | None:
    for place in (
        resources.files(package_of(entry)) / "goldens",
        resources.files(__name__) / entry.kind,
    ):
        file = place / f"{entry.name}{suffix}"
        if file.is_file():
            return file
    return None


def folder(entry: Entry) -> Path:
    """Folder with a plugin's golden, and the files it names."""
    file = _file(entry, ".json")
    assert isinstance(file, Path), f"{entry.distribution} is not installed as files"
    return file.parent


def samples(entry: Entry) -> list[Any]:
    """Records that a format can read: goldens/NAME.jsonl."""
    file = _file(entry, ".jsonl")
    return (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file else []
    )


def golden(entry: Entry) -> dict[str, Any] | None:
    """goldens/NAME.json: a template's rendered cases, or a dataset's data. None: missing."""
    file = _file(entry, ".json")
    return json.loads(file.read_text(encoding="utf-8")) if file else None


def official(entry: Entry) -> Official | None:
    """Template named as `official` in the golden: `trl:qwen3.jinja` of TRL's package, or a file in
    goldens/."""
    declared = (golden(entry) or {}).get("official")
    if declared is None:
        return None
    package, _, name = declared["file"].rpartition(":")
    if package == "trl":  # found without importing TRL, which takes seconds
        source = metadata.distribution("trl").locate_file(f"trl/chat_templates/{name}")
        text = Path(str(source)).read_text(encoding="utf-8")
    else:
        own = resources.files(package_of(entry)) / "goldens" / name
        text = own.read_text(encoding="utf-8")
    return Official(text, declared.get("differs", {}))


def of_cases(template: PluginCaller) -> dict[str, Any]:
    """Golden content: by case, the lines of the text and its trained parts, or the reason for
    refusal."""
    renderer = Renderer(template)
    found: dict[str, Any] = {}
    for name, case in cases().items():
        try:
            rendered = renderer.render(case)
        except RowError as error:
            found[name] = {"refused": error.problem}
            continue
        trained = [rendered.text[span.start : span.end] for span in rendered.trained]
        found[name] = {"text": rendered.text.splitlines(keepends=True), "trained": trained}
    return found
