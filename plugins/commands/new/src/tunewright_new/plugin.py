"""A new distribution, from the files in scaffolds/.

A file's text and path are string.Template's, and its last suffix, .txt, is taken off.
"""

import keyword
import re
from collections.abc import Iterator
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from tunewright import RecipeError, __version__, registry
from tunewright.errors import did_you_mean
from tunewright.kinds import kinds

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def write_plugin(
    name: str, kind: str, folder: Path | None = None, model_type: str = ""
) -> list[Path]:
    """Write a distribution with one plugin that works. Returns the files.

    Raises RecipeError where a name cannot be used or is taken, and where the folder is there
    already.
    """
    _check_kind(kind)
    _check_name(name, kind)
    if kind == "family":
        _check_model_type(model_type)
    elif model_type:
        raise RecipeError("is for families only", place="--model-type")
    distribution = f"tunewright-{name.replace('_', '-')}"
    folder = folder or Path(distribution)
    if folder.exists():
        raise RecipeError("is there already", place=str(folder), hint="--folder names another one")
    source = resources.files("tunewright_new") / "scaffolds" / kind
    major, minor, _ = __version__.split(".", 2)
    words = {
        "name": name,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "class_name": _class_name(name, source),
        "model_type": model_type,
        "bounds": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }
    return _write(source, folder, words)


def _write(source: Traversable, target: Path, words: dict[str, str]) -> list[Path]:
    target.mkdir(parents=True)
    written: list[Path] = []
    for item in sorted(source.iterdir(), key=lambda item: item.name):
        name = Template(item.name).substitute(words)
        if item.is_dir():
            written += _write(item, target / name, words)
        else:
            file = target / name.removesuffix(".txt")
            file.write_text(Template(item.read_text("utf-8")).substitute(words), "utf-8")
            written.append(file)
    return written


def _texts(source: Traversable) -> Iterator[str]:
    for item in source.iterdir():
        if item.is_dir():
            yield from _texts(item)
        else:
            yield item.read_text("utf-8")


# ---- names ---------------------------------------------------------------------------------------


def _check_kind(kind: str) -> None:
    known = [
        name for name in kinds() if (resources.files(__package__) / "scaffolds" / name).is_dir()
    ]
    if kind not in known:
        problem = f"found {kind!r}, expected a kind"
        raise RecipeError(problem, place="--kind", hint=did_you_mean(kind, known))


def _check_name(name: str, kind: str) -> None:
    """Raises RecipeError where no package could be called so, or somebody else is."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        problem = (
            f"found {name!r}, expected small letters, digits and single underscores, a letter first"
        )
        raise RecipeError(problem, place="NAME")
    owners = {entry.name: entry.distribution for entry in registry.entries(kind)}
    owners = registry.shipped_table()["known"].get(kind, {}) | owners
    if kind == "command":
        owners = dict.fromkeys(_verbs(), "tunewright") | owners
    if name in owners:
        raise RecipeError(
            f"{owners[name]} has a {kind} of this name",
            place=name,
            hint="call yours something else",
        )
    distribution = f"tunewright-{name.replace('_', '-')}"
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return
    raise RecipeError(f"{distribution} is installed", place=name, hint="call yours something else")


def _verbs() -> set[str]:
    """The verbs of the kernel's own."""
    from tunewright.cli import VERBS

    return VERBS[""][1].keys() | {group for group in VERBS if group}


def _class_name(name: str, source: Traversable) -> str:
    """What the plugin's class is called: not like anything that the scaffold imports."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    return (
        f"{camel}Plugin"
        if any(re.search(rf"\b{camel}\b", text) for text in _texts(source))
        else camel
    )


def _check_model_type(model_type: str) -> None:
    """Raises RecipeError where it is missing, or another family's: models would be loaded by the
    wrong one."""
    if not _MODEL_TYPE.fullmatch(model_type):
        hint = "it stands in the config.json of a checkpoint"
        raise RecipeError(
            f"found {model_type!r}, expected the family's model_type",
            place="--model-type",
            hint=hint,
        )
    owners = registry.shipped_table()["known"].get("model_type", {})
    owners |= {point.name: point.distribution for point in registry.group("model_type")}
    if model_type in owners:
        raise RecipeError(f"{owners[model_type]} has it", place=f"--model-type {model_type}")
