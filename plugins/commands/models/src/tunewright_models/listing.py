"""The checkpoints.toml of every installed family, read without importing the family."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from tunewright import RecipeError, registry
from tunewright.registry import Entry
from tunewright.terminal import printable


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that a family lists."""

    family: str
    line: str  # name of the model series, such as Qwen2.5
    id: str  # on the Hugging Face hub
    modelscope: str | None  # on ModelScope, if known
    size: str  # in parameters
    kind: str  # base or chat
    template: str
    twin: str | None  # tiny twin of the family that `--smoke` trains in its place
    license: str  # as given on the hub
    remote_code: bool  # modelling code is only on the hub and needs --trust-remote-code
    template_options: dict[str, bool | str]  # differences from other checkpoints with this template
    native: str | None  # class of transformers that computes the same as the code on the hub

    @property
    def searched(self) -> str:
        return f"{self.family} {self.line} {self.id} {self.modelscope}".lower()


def checkpoints() -> list[Checkpoint]:
    """Checkpoints of all installed families, in the order of their files."""
    return [checkpoint for entry in registry.entries("family") for checkpoint in _listed(entry)]


def select(
    found: Sequence[Checkpoint], words: str, family: str | None, kind: str | None
) -> list[Checkpoint]:
    """Checkpoints that match all words, the family and the kind. Raises RecipeError if there are
    none."""
    if family is not None:
        registry.find("family", family, "command line: --family")
    rest = [each for each in found if family in (None, each.family) and kind in (None, each.kind)]
    chosen = [each for each in rest if all(word in each.searched for word in words.lower().split())]
    if not chosen:
        which = "".join(
            [f" of family {family}" if family else "", f" of kind {kind}" if kind else ""]
        )
        fits = f" that fits {words!r}" if words else ""
        raise RecipeError(
            f"no checkpoint{which}{fits}", place="command line", hint=_nearest(words, rest)
        )
    return chosen


def as_text(found: Sequence[Checkpoint]) -> str:
    """Lines for a terminal: one per series, and below it one per checkpoint."""
    widths = [
        max(len(text) for text in texts)
        for texts in zip(*((each.id, each.size) for each in found), strict=True)
    ]
    blocks = []
    for heading, group in groupby(found, _heading):
        family, line, template, options, license_, remote, native = heading
        note = " · code from the hub: --trust-remote-code" if remote else ""
        note += f" · native as {native}" if native else ""
        with_ = f" ({options_text(options)})" if options else ""
        lines = [
            f"{line} · family {family} · template {template}{with_} · licence {license_}{note}"
        ]
        for each in group:
            other = (
                f"  ModelScope: {each.modelscope}" if each.modelscope not in (None, each.id) else ""
            )
            lines.append(f"  {each.id:{widths[0]}}  {each.size:{widths[1]}}  {each.kind}{other}")
        blocks.append("\n".join(lines))
    return printable("\n\n".join(blocks))


def options_text(options: dict[str, bool | str], longest: int = 50) -> str:
    """Options of a template in one line, long texts cut off."""
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in options.items()}
    return ", ".join(
        f"{name}: {text if len(text) <= longest else text[: longest - 2] + '…'}"
        for name, text in texts.items()
    )


def to_json(found: Sequence[Checkpoint]) -> str:
    return json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False)


def _listed(entry: Entry) -> list[Checkpoint]:
    # does not import a top-level package
    package = find_spec(entry.value.partition(":")[0].partition(".")[0])
    files = [
        Path(folder, "checkpoints.toml")
        for folder in (package.submodule_search_locations or [] if package else [])
    ]
    return [
        Checkpoint(
            family=entry.name,
            line=line["name"],
            id=each["id"],
            modelscope=each.get("modelscope"),
            size=each["size"],
            kind=each["kind"],
            template=each.get("template", line["template"]),
            twin=each.get("twin", line.get("twin")),
            license=each.get("license", line["license"]),
            remote_code=each.get("remote_code", line.get("remote_code", False)),
            template_options=each.get("template_options", line.get("template_options", {})),
            native=None if each.get("remote_code") else line.get("native"),
        )
        for file in files
        if file.is_file()  # a family need not list any
        for line in tomllib.loads(file.read_text("utf-8"))["line"]
        for each in line["checkpoints"]
    ]


def _heading(
    each: Checkpoint,
) -> tuple[str, str, str, dict[str, bool | str], str, bool, str | None]:
    code = each.remote_code, each.native
    return each.family, each.line, each.template, each.template_options, each.license, *code


def _nearest(words: str, found: Sequence[Checkpoint]) -> str:
    """Suggestion: a family that is not installed, or else the closest names."""
    brings = registry.shipped_table()["known"].get("family", {}).get(words.lower())
    if brings and words.lower() not in [entry.name for entry in registry.entries("family")]:
        return f"pip install {brings}"
    names = {each.id.partition("/")[2].lower(): each.id for each in found}
    names |= {name.lower(): name for each in found for name in (each.id, each.line, each.family)}
    close = [names[name] for name in get_close_matches(words.lower(), names, n=5)]
    return (
        f"the nearest: {', '.join(dict.fromkeys(close))}"
        if close
        else "tunewright models lists all"
    )
