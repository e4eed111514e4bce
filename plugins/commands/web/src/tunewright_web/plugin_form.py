"""Forms of the plugins that commands call: exporters and evaluators."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tunewright import registry
from tunewright.descriptions import described
from tunewright.errors import Problem, did_you_mean
from tunewright_web.errors import WebError
from tunewright_web.form import Field, field_of
from tunewright_web.values import Unreadable, parse

if TYPE_CHECKING:
    from tunewright_web.web import Web

__all__ = [
    "PluginForm",
    "find_form",
    "option_arguments",
    "options_of_form",
    "pairs",
    "plugin_form",
    "plugin_forms",
    "trusted",
]

_PREFIX = "option."  # of the fields of a form
_SET_NAME = re.compile(r"\w[\w-]*")
#: options that name files or folders, whatever plugin has them
_PATHS = ("data", "data_folder", "include_path", "converter", "base", "path")


@dataclass(frozen=True, slots=True)
class PluginForm:
    """A plugin with its options. runs: how many it is called with."""

    name: str
    about: str
    fields: tuple[Field, ...]
    runs: int
    options: Any  # its pydantic model

    @property
    def summary(self) -> str:
        """First sentence of its description."""
        return re.split(r"(?<=[.:]) ", self.about, maxsplit=1)[0].rstrip(":")


def plugin_forms(kind: str) -> tuple[list[PluginForm], list[str]]:
    """Installed plugins of a kind by name, and a line for each that cannot be imported."""
    found, broken = [], []
    for entry in sorted(registry.entries(kind), key=lambda each: each.name):
        try:
            plugin = registry.load(entry)
            found.append(plugin_form(entry.name, plugin))
        except Exception as error:  # whatever a stranger's module raises
            broken.append(" ".join(str(error).split())[:300])
    return found, broken


def plugin_form(name: str, plugin: Any) -> PluginForm:
    """The form of a plugin class."""
    texts = described(plugin.Options)
    schema = plugin.Options.model_json_schema()
    fields = []
    for key, part in schema.get("properties", {}).items():
        found = {"description": texts.get(key, ""), **part}
        fields.append(field_of(key, found, key in schema.get("required", ())))
    about = " ".join((plugin.__doc__ or "").split())
    return PluginForm(name, about, tuple(fields), getattr(plugin, "runs", 1), plugin.Options)


def find_form(kind: str, name: str) -> PluginForm:
    """The form of one plugin. Raises WebError."""
    forms, _ = plugin_forms(kind)
    for each in forms:
        if each.name == name:
            return each
    hint = did_you_mean(name, [each.name for each in forms])
    raise WebError(f"there is no {kind} {name!r:.60}", hint, status=422)


def options_of_form(form: PluginForm, given: Mapping[str, str]) -> dict[str, Any]:
    """Options that were typed into the fields `option.NAME`. Raises WebError with the problem of
    each field."""
    found: dict[str, Any] = {}
    problems = []
    for field in form.fields:
        if (text := given.get(_PREFIX + field.key, "")).strip():
            try:
                found[field.key] = parse(field, text)
            except Unreadable as error:
                problems.append(Problem((field.key,), str(error), error.hint))
    if problems:
        raise WebError("some options cannot be read", status=422, problems=problems)
    return found


def option_arguments(web: "Web", form: PluginForm, options: Mapping[str, Any]) -> list[str]:
    """NAME=VALUE for the command line. Raises WebError with the problem of each option."""
    try:
        form.options(**options)
    except ValidationError as error:
        found = [Problem(tuple(each["loc"]), each["msg"]) for each in error.errors()]
        said = f"{form.name}: {found[0].path[0] if found[0].path else ''}: {found[0].message}"
        raise WebError(said, status=422, problems=found) from error
    declared = {field.key for field in form.fields if field.widget == "path"}
    for key, value in options.items():
        if key in _PATHS:
            _confine(web, key, value)
        elif key in declared and isinstance(value, str):
            _confine_declared(web, value)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]


def _confine(web: "Web", key: str, value: Any) -> None:
    """Raise WebError for a path that may not be read. A plain word is the name of a set."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("path", "dataset_info"):
                _confine(web, f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            _confine(web, key, inner)
    elif isinstance(value, str):
        is_name = key == "data" and _SET_NAME.fullmatch(value)
        if not is_name and not _is_hub_id(key, value):
            web.workspace.readable(value)


def _confine_declared(web: "Web", value: str) -> None:
    """Of an option that its plugin declares as a path: it may name what is not there yet."""
    try:
        web.workspace.readable(value)
    except WebError as error:
        if error.status != 404:
            raise


def _is_hub_id(key: str, value: str) -> bool:
    """`base` may name a model of a hub."""
    return key == "base" and re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", value) is not None


def pairs(values: Iterable[Any]) -> list[tuple[str, str]]:
    """Values of a choice, with themselves as texts."""
    return [(str(value), str(value)) for value in values]


def trusted(web: "Web", folder: Path) -> list[str]:
    """--trust-remote-code, where the run's model is one that was named on the command line."""
    try:
        model = json.loads((folder / "run.json").read_text("utf-8"))["recipe"]["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return ["--trust-remote-code"] if model in web.trusted else []
