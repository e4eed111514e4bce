"""Form of a recipe: sections, plugins and fields, made from the schema of the installed plugins."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tunewright import registry
from tunewright.kinds import Kind, kind_of, kinds, sections
from tunewright.recipe import mask
from tunewright_web.schema_child import installed_schema

Widget = Literal[
    "text",
    "path",
    "secret",
    "number",
    "integer",
    "choice",
    "switch",
    "lines",
    "scalar",
    "yaml",
    "sources",
]
Tier = Literal["basic", "more", "advanced"]

#: last words of option names that are their unit
_UNITS = ("steps", "tokens", "bytes", "epochs", "seconds", "records", "layers", "pixels", "frames")
_MOST_SHOWN = 6  # fields of a plugin that marks none as basic


@dataclass(frozen=True, slots=True)
class Field:
    """One option. `default` is None if it has none, or if nothing is the default."""

    key: str
    widget: Widget
    help: str = ""
    default: Any = None
    required: bool = False
    nullable: bool = False
    choices: tuple[Any, ...] = ()  # of lines: texts that stand for a list
    unit: str = ""
    tier: Tier = "more"
    suggestions: tuple[str, ...] = ()  # values that go with others

    @property
    def label(self) -> str:
        """The name as words: `learning_rate` is `Learning rate`."""
        return self.key[:1].upper() + self.key[1:].replace("_", " ")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of a section, with its options."""

    name: str
    fields: tuple[Field, ...]

    def field(self, key: str) -> Field | None:
        """The option with this name."""
        return next((field for field in self.fields if field.key == key), None)


@dataclass(frozen=True, slots=True)
class Section:
    """Choice of a plugin, or of several."""

    key: str  # in a recipe
    help: str
    many: bool
    defaults: tuple[str, ...]
    plugins: Mapping[str, Plugin]
    nameless: bool = False  # whether options of the default plugin stand without its name
    broken: tuple[str, ...] = ()  # a line for each plugin that cannot be imported

    @property
    def usual(self) -> Plugin | None:
        """The plugin whose options need no name."""
        return self.plugins.get(self.defaults[0]) if self.defaults and not self.many else None

    def chosen(self, name: str) -> Plugin | None:
        """The plugin of this name, written alone or with its distribution."""
        return self.plugins.get(name) or self.plugins.get(name.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Form:
    """Form of a recipe."""

    fields: Mapping[str, Field]  # model, output, data_root
    groups: Mapping[str, tuple[Field, ...]]  # training
    sections: Mapping[str, Section]  # with stages and launch
    entry: tuple[Field, ...]  # of a source of data
    broken: tuple[str, ...] = ()  # lines on plugins without a section

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = asdict(self)
        return found


@functools.cache
def installed() -> Form:
    """The form for the installed plugins. Raises RunError.

    The schema is cached on disk; if it is not, a child process imports the plugins: one that is
    broken cannot harm the server.
    """
    return form_of(*installed_schema())


def form_of(schema: dict[str, Any], left_out: list[str]) -> Form:
    """The form for a schema of `tunewright.schema`. left_out: lines on broken plugins."""
    maker = _Maker(schema, left_out)
    known = {kind.key: kind for kind in sections().values()}
    found = {key: maker.section(key, kind) for key, kind in known.items()}
    found["stages"] = maker.section("stages", replace(kind_of("stage"), many=True))
    found["launch"] = maker.section("launch", kind_of("launcher"))
    used = {line for section in found.values() for line in section.broken}
    required = schema.get("required", ())
    plain = ("model", "output", "data_root")
    properties = schema["properties"]
    groups = {"training": maker.fields(maker.resolved(properties["training"]))}
    return Form(
        {key: field_of(key, properties[key], key in required) for key in plain},
        groups,
        found,
        maker.fields(maker.resolved(properties["data"]["items"])),
        tuple(line for line in left_out if line not in used),
    )


class _Maker:
    """Reads the schema's parts."""

    def __init__(self, schema: dict[str, Any], left_out: list[str]) -> None:
        self.schema, self.left_out = schema, left_out

    def resolved(self, part: Any) -> Any:
        """The part that a `$ref` points to; with several alternatives, the first."""
        while isinstance(part, dict) and ("$ref" in part or "anyOf" in part):
            if "anyOf" in part:
                part = part["anyOf"][0]
                continue
            found: Any = self.schema
            for key in part["$ref"].removeprefix("#/").split("/"):
                found = found[key]
            part = found
        return part

    def section(self, key: str, kind: Kind) -> Section:
        part = self.schema["properties"][key]
        choice = part["items"] if kind.many else part
        while "$ref" in choice:
            choice = self.schema["$defs"][choice["$ref"].removeprefix("#/$defs/")]
        plugins: dict[str, Plugin] = {}
        nameless = False
        for alternative in choice["anyOf"][1:]:
            own = self.resolved(alternative)
            name = own["properties"]["name"]
            fields = self.fields(own)
            nameless |= "name" not in own["required"]
            for each in name.get("enum", [name.get("const")]):
                plugins[each] = Plugin(each, fields)
        broken = tuple(line for line in self.left_out if line.startswith(f"{kind.name} '"))
        about = kind.summary or part.get("description", "")
        by_name = dict(sorted(plugins.items()))
        return Section(key, about, kind.many, kind.defaults, by_name, nameless, broken)

    def fields(self, own: dict[str, Any]) -> tuple[Field, ...]:
        required, is_plugin = own.get("required", ()), "title" in own
        found = [
            field_of(key, part, key in required)
            for key, part in own.get("properties", {}).items()
            if not (key == "name" and ("const" in part or "enum" in part) and is_plugin)
        ]
        return tuple(found)


def field_of(key: str, part: dict[str, Any], required: bool = False) -> Field:
    """The field of one property of a JSON schema."""
    alternatives = part.get("anyOf", [part])
    types = [each for each in alternatives if each.get("type") != "null"]
    widget, choices, suggestions = _widget(key, part, types)
    return Field(
        key,
        widget,
        " ".join(part.get("description", "").split()),
        part.get("default"),
        required,
        len(types) < len(alternatives),
        choices,
        part.get("unit", _unit(key, widget)),
        "basic" if required else part.get("tier", "more"),
        suggestions,
    )


def _widget(
    key: str, part: dict[str, Any], types: list[dict[str, Any]]
) -> tuple[Widget, tuple[Any, ...], tuple[str, ...]]:
    """Widget, the values to choose from, and suggestions."""
    if part.get("$ref") in ("#/properties/data", "#/properties/eval_data"):
        return "sources", (), ()
    if part.get("widget") in ("path", "secret"):
        return part["widget"], (), ()
    if mask({key: "-"}) != {key: "-"}:
        return "secret", (), ()
    constants = [value for each in types for value in _constants(each)]
    named = tuple(value for value in constants if isinstance(value, str))
    if types and all(_constants(each) for each in types):
        return "choice", tuple(constants), ()
    sorts = {each.get("type") for each in types if not _constants(each)}
    if sorts == {"boolean"}:
        return "switch", (), ()
    if sorts <= {"integer", "number"} and sorts and not constants:
        return ("integer" if sorts == {"integer"} else "number"), (), ()
    if sorts == {"string"}:
        return "text", (), named
    if sorts <= {"integer", "number", "string"} and sorts:
        return "scalar", (), named
    if sorts == {"array"} and all(
        each["items"].get("type") == "string" for each in types if each.get("type") == "array"
    ):
        inner = [value for each in types for value in _constants(each.get("items", {}))]
        return "lines", named, (*named, *inner)
    if key in kinds() and {"$ref": "#/$defs/Section"} in types:  # a plugin, with options or without
        named = tuple(sorted({entry.name for entry in registry.entries(key)}))
    return "yaml", (), named


def _constants(part: dict[str, Any]) -> list[Any]:
    return [part["const"]] if "const" in part else list(part.get("enum", ()))


def _unit(key: str, widget: str) -> str:
    last = re.split("_", key)[-1]
    return last if widget in ("number", "integer") and last in _UNITS else ""


def shown(fields: tuple[Field, ...]) -> list[Field]:
    """Fields that are shown first: the basic ones; where none is marked so, the first few that are
    not advanced."""
    basic = [field for field in fields if field.tier == "basic"]
    if all(field.required for field in basic):
        others = [field for field in fields if field.tier == "more" and field.widget != "sources"]
        basic += [field for field in others if field not in basic][: _MOST_SHOWN - len(basic)]
    return [field for field in fields if field in basic]


def folded(fields: tuple[Field, ...]) -> list[Field]:
    """The other fields, the advanced ones last."""
    first = shown(fields)
    rest = [field for field in fields if field not in first and field.widget != "sources"]
    return sorted(rest, key=lambda field: field.tier == "advanced")


def all_fields(form: Form) -> Iterator[Field]:
    """Every field of a form; plugins with equal options give theirs once."""
    seen: set[int] = set()
    groups = [tuple(form.fields.values()), *form.groups.values(), form.entry]
    for section in form.sections.values():
        groups += [plugin.fields for plugin in section.plugins.values()]
    for group in groups:
        if id(group) not in seen:
            seen.add(id(group))
            yield from group
