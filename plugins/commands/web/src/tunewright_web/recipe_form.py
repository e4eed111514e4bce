"""Texts of a form to a recipe, and a recipe to the texts.

Texts are kept by name: the field's path with dots, such as `training.learning_rate`,
`data.0.path`, `stages.0.name`. A set of `eval_data` is the source's own text `@set`. Only what was
typed is written. What the form does not know is kept as YAML, so that the check names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewright.errors import Problem
from tunewright_web.form import Field, Form, Section
from tunewright_web.values import Unreadable, parse, parse_yaml, unparse

Texts = Mapping[str, str]
Path_ = tuple[str | int, ...]
SET = "@set"  # name of the evaluation set that a source belongs to
_DEFAULT_SET = "validation"


@dataclass
class Reading:
    """A recipe that was read from texts. problems: texts that cannot be read."""

    recipe: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    places: dict[Path_, str] = field(default_factory=dict)  # path in the recipe → name of the text

    def name(self, path: Sequence[str | int]) -> str:
        """Name of the text from which a value was read."""
        path = tuple(path)
        if path[:1] == ("stage",):
            path = ("stages", 0, *path[1:])
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return ".".join([self.places[path[:length]], *map(str, path[length:])])
        return ".".join(map(str, path))


def read(form: Form, texts: Texts) -> Reading:
    """The recipe that the texts stand for."""
    found, tree = Reading(), _tree(texts)
    order = ["model", *(key for key in form.sections if key not in ("stages", "launch"))]
    order += ["data", "eval_data", "stages", "training", "launch", "output", "data_root"]
    for key in [*order, *(key for key in tree if key not in order)]:
        value = _top(form, found, key, tree[key]) if key in tree else None
        if value is not None and value is not _NOTHING:
            found.recipe[key] = value
    if len(stages := found.recipe.get("stages", [])) == 1 and isinstance(stages, list):
        keys = ["stage" if key == "stages" else key for key in found.recipe]
        found.recipe = dict(zip(keys, found.recipe.values(), strict=True))
        found.recipe["stage"] = stages[0]
    return found


def _top(form: Form, found: Reading, key: str, node: Any) -> Any:
    """Value of a first key of the recipe; None if nothing was typed."""
    if isinstance(node, str):
        known = form.fields.get(key)
        return _value(found, known, (key,), node) if known else _unknown(found, (key,), node)
    if key in form.sections:
        section = form.sections[key]
        if not section.many:
            return _plugin(form, found, section, (key,), key, node)
        return _list(found, key, node, lambda *at: _plugin(form, found, section, *at))
    if key == "data":
        return _list(found, key, node, lambda *at: _fields(form, found, form.entry, *at))
    if key == "eval_data":
        return _sets(form, found, node, (key,), key)
    return _fields(form, found, form.groups.get(key, ()), (key,), key, node)


def _list(found: Reading, name: str, node: Any, one: Any, path: Path_ = ()) -> Any:
    """A list of sections or sources; empty ones are left out."""
    items: list[Any] = []
    for index in sorted(node, key=_number):
        at, own = (*(path or (name,)), len(items)), f"{name}.{index}"
        inner = node[index]
        value = _unknown(found, at, inner) if isinstance(inner, str) else one(at, own, inner)
        if value not in (None, {}):
            found.places[at] = own
            items.append(value)
    return items or None


def _sets(form: Form, found: Reading, node: Any, path: Path_, name: str) -> Any:
    sets: dict[str, list[Any]] = {}
    for index in sorted(node, key=_number):
        inner, own = node[index], f"{name}.{index}"
        if isinstance(inner, str):
            continue
        title = inner.pop(SET, "").strip() or _DEFAULT_SET
        at = (*path, title, len(sets.get(title, ())))
        if value := _fields(form, found, form.entry, at, own, inner):
            found.places[at] = own
            sets.setdefault(title, []).append(value)
    return sets or None


def _plugin(form: Form, found: Reading, section: Section, at: Path_, name: str, node: Any) -> Any:
    """A section: the plugin's name alone, or with its options."""
    title = node.pop("name", "").strip() if isinstance(node.get("name", ""), str) else ""
    plugin = section.chosen(title or (*section.defaults, "")[0])
    fields = plugin.fields if plugin else ()
    options = _fields(form, found, fields, at, name, node) or {}
    if not title and options and section.defaults and not (section.many or section.nameless):
        title = section.defaults[0]  # the options are the default plugin's
    if not title:
        return options or None
    return {"name": title, **options} if options else title


def _fields(
    form: Form, found: Reading, fields: Sequence[Field], at: Path_, name: str, node: Any
) -> Any:
    known = {each.key: each for each in fields}
    values: dict[str, Any] = {}
    for key in [*(key for key in known if key in node), *(key for key in node if key not in known)]:
        inner, place = node[key], (*at, key)
        if key in known and known[key].widget == "sources" and not isinstance(inner, str):
            own = f"{name}.{key}"
            if key == "data":
                value = _list(
                    found, own, inner, lambda *to: _fields(form, found, form.entry, *to), place
                )
            else:
                value = _sets(form, found, inner, place, own)
        elif not isinstance(inner, str):
            value = {each: str(text) for each, text in inner.items()}
        elif key in known and known[key].widget != "sources":
            values[key] = _value(found, known[key], place, inner)
            if values[key] is _NOTHING:
                del values[key]
            continue
        else:
            value = _unknown(found, place, inner)
        if value is not None:
            values[key] = value
    return values or None


class _Nothing:
    """Stands for a text that could not be read: its problem was noted."""


_NOTHING: Any = _Nothing()


def _value(found: Reading, known: Field, at: Path_, text: str) -> Any:
    try:
        return parse(known, text)
    except Unreadable as error:
        found.problems.append(Problem(at, str(error), error.hint))
        return _NOTHING


def _unknown(found: Reading, at: Path_, text: str) -> Any:
    try:
        return parse_yaml(text)
    except Unreadable as error:
        found.problems.append(Problem(at, str(error), error.hint))
        return None


def _tree(texts: Texts) -> dict[str, Any]:
    """Texts that are not empty, by the parts of their names."""
    tree: dict[str, Any] = {}
    for name, text in texts.items():
        if not text.strip():
            continue
        *path, last = name.split(".")
        here = tree
        for part in path:
            if not isinstance(here.get(part), dict):
                here[part] = {}
            here = here[part]
        if not isinstance(here.get(last), dict):
            here[last] = text
    return tree


def _number(index: str) -> tuple[int, str]:
    return (int(index), "") if index.isdecimal() and len(index) < 7 else (10**7, index)


# ---- recipe to texts -----------------------------------------------------------------------------


def texts_of(form: Form, recipe: Mapping[str, Any]) -> dict[str, str]:
    """The texts that `read` reads as the recipe."""
    found: dict[str, str] = {}
    for key, value in recipe.items():
        name, values = ("stages", [value]) if key == "stage" else (key, value)
        if values is not None:
            found.update(_texts(form, str(name), values))
    return found


def _texts(form: Form, name: str, value: Any) -> Iterator[tuple[str, str]]:
    if name in form.fields:
        yield name, unparse(form.fields[name], value)
    elif name in form.sections:
        section = form.sections[name]
        if section.many:
            for index, each in enumerate(value if isinstance(value, list) else ()):
                yield from _section_texts(form, section, f"{name}.{index}", each)
            if not isinstance(value, list):
                yield name, unparse(_YAML, value)
        else:
            yield from _section_texts(form, section, name, value)
    elif name in ("data", "eval_data"):
        yield from _data_texts(form, name, value)
    elif isinstance(value, dict):
        yield from _field_texts(form, form.groups.get(name, ()), name, value)
    else:
        yield name, unparse(_YAML, value)


def _section_texts(form: Form, section: Section, name: str, value: Any) -> Any:
    if isinstance(value, str) and value:
        yield f"{name}.name", value
    elif isinstance(value, dict) and _is_chosen(section, value.get("name")):
        plugin = section.chosen(value["name"]) if value.get("name") else section.usual
        if value.get("name"):
            yield f"{name}.name", value["name"]
        rest = {key: each for key, each in value.items() if key != "name"}
        yield from _field_texts(form, plugin.fields if plugin else (), name, rest)
    else:
        yield name, unparse(_YAML, value)


def _is_chosen(section: Section, name: Any) -> bool:
    return isinstance(name, str) or (name is None and section.nameless)


def _field_texts(form: Form, fields: Sequence[Field], name: str, values: Any) -> Any:
    known = {each.key: each for each in fields}
    for key, value in values.items():
        own, here = f"{name}.{key}", known.get(key)
        if here is None:
            yield own, unparse(_YAML, value)
        elif here.widget != "sources":
            yield own, unparse(here, value)
        elif value is not None:
            yield from _data_texts(form, own, value)


def _data_texts(form: Form, name: str, value: Any) -> Any:
    """Texts of a list of sources, or of sets of them."""
    sets: Any = value if isinstance(value, dict) and value else {"": value}
    is_known = name.endswith("eval_data") == isinstance(value, dict) and all(
        isinstance(listed, list) and all(isinstance(each, dict) and each for each in listed)
        for listed in sets.values()
    )
    if not is_known:
        yield name, unparse(_YAML, value)
        return
    index = 0
    for title, listed in sets.items():
        for source in listed:
            own = f"{name}.{index}"
            if title:
                yield f"{own}.{SET}", str(title)
            yield from _field_texts(form, form.entry, own, source)
            index += 1


_YAML = Field("", "yaml")
