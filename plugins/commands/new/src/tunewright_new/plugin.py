"""A new distribution, from the files in scaffolds/KIND; of a third party's kind, in scaffolds/any.

Texts and paths of the files are string.Template templates; the last suffix, .txt, is removed.
"""

import inspect
import keyword
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module, metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any

from tunewright import RecipeError, __version__, registry
from tunewright.errors import did_you_mean
from tunewright.kinds import Kind, kind_of, kinds

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MODEL_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def write_plugin(
    name: str, kind: str, folder: Path | None = None, model_type: str = ""
) -> list[Path]:
    """Write a distribution with one working plugin. Returns the files.

    Raises RecipeError if a name is invalid or taken, or the folder exists.
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
    source = _scaffold(kind)
    major, minor, _ = __version__.split(".", 2)
    words = {
        "name": name,
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "class_name": _class_name(name, source),
        "model_type": model_type,
        **(_facts(kind_of(kind)) if source.name == "any" else {}),
        "bounds": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }
    return _write(source, folder, words)


def _scaffold(kind: str) -> Traversable:
    """The files of a kind; those for any kind where it is a third party's."""
    folder = resources.files("tunewright_new") / "scaffolds"
    own = folder / kind
    return own if kind != "any" and own.is_dir() else folder / "any"


def _facts(kind: Kind) -> dict[str, str]:
    """Substitutions of a scaffold, from the declaration of a kind."""
    module, _, base = (kind.base or "tunewright.plugin:Plugin").partition(":")
    own = f"from tunewright import PluginOptions{', hookimpl' if kind.hooks else ''}"
    specs = import_module(kind.specs)
    hooks = [_hook(name, getattr(specs, name)) for name in kind.hooks]
    owners = []
    for point in registry.group("kind"):
        with suppress(Exception):  # another's declaration may be broken
            owners += [point.distribution] if kind in point.load() else []
    return {
        "kind": kind.name,
        "summary": kind.summary or kind.name,
        "typing": "from typing import Any\n\n" if kind.hooks else "",
        "imports": "\n".join(sorted((own, f"from {module} import {base}"))),
        "base_class": base,
        "hooks": "".join(hooks),
        "owner": next(iter(owners), "tunewright"),
    }


def _hook(name: str, spec: Callable[..., Any]) -> str:
    """A method that says what it is to do, and does nothing yet."""
    arguments = "".join(f", {each}: Any" for each in inspect.signature(spec).parameters)
    about = (inspect.getdoc(spec) or "Not written yet.").splitlines()[0]
    return f"""
    @hookimpl
    def {name}(self{arguments}) -> Any:
        \"\"\"{about}\"\"\"
        raise NotImplementedError
"""


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
    if kind not in kinds():
        problem = f"found {kind!r}, expected a kind"
        raise RecipeError(problem, place="--kind", hint=did_you_mean(kind, kinds()))


def _check_name(name: str, kind: str) -> None:
    """Raise RecipeError if the name is no valid package name, or taken."""
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
    """Verbs of the kernel."""
    from tunewright.cli import VERBS

    return VERBS[""][1].keys() | {group for group in VERBS if group}


def _class_name(name: str, source: Traversable) -> str:
    """Class name of the plugin. Differs from everything that the scaffold imports."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    return (
        f"{camel}Plugin"
        if any(re.search(rf"\b{camel}\b", text) for text in _texts(source))
        else camel
    )


def _check_model_type(model_type: str) -> None:
    """Raise RecipeError if it is missing, or claimed by another family, which would then load
    these models."""
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
