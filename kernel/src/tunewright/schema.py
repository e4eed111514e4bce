"""JSON schema of recipes, from the Options of all installed plugins, for editors and forms.

Each plugin's options appear once, in `$defs`. A field's `tier` (basic, advanced), `widget`
(path, secret) and `unit` are kept.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from tunewright import registry
from tunewright.descriptions import described
from tunewright.errors import TunewrightError
from tunewright.kinds import kind_of, sections
from tunewright.recipe import RecipeFields, StageSection


class _Described(GenerateJsonSchema):
    """Takes a field's description from the docstring below it."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made = super().model_schema(schema)
        for name, text in described(schema["cls"]).items():
            if name in made.get("properties", {}):
                made["properties"][name].setdefault("description", text)
        return made


def schema(left_out: list[str] | None = None) -> dict[str, Any]:
    """The schema. Plugins that cannot be imported are left out; left_out gets the reasons."""
    left_out = [] if left_out is None else left_out
    whole = RecipeFields.model_json_schema(schema_generator=_Described)
    whole["title"], whole["description"] = "Recipe", "One run of Tunewright."
    definitions, fields = whole["$defs"], whole["properties"]
    for unused in ("Section", "StageSection"):
        definitions.pop(unused, None)
    for key, kind in sections().items():
        choice = _choice(kind.name, definitions, left_out)
        fields[key] = {"description": kind.summary}
        fields[key] |= {"type": "array", "items": choice} if kind.many else choice
    fields["launch"] = {"description": fields["launch"]["description"]}
    fields["launch"] |= _launch(definitions, left_out)
    definitions["stage"] = _choice("stage", definitions, left_out, _stage_fields(fields))
    fields["stages"]["items"] = {"$ref": "#/$defs/stage"}
    fields["stage"] = {"description": "The training stage.", "$ref": "#/$defs/stage"}
    entries = [
        _define(f"entry-{name}", plugin.Entry, definitions)
        for name, plugin in _all("dataset", left_out)
    ]
    source = {"anyOf": entries} if len(entries) != 1 else entries[0]
    fields["data"]["items"] = source
    fields["eval_data"]["additionalProperties"]["items"] = source
    whole["required"] = ["model", "output"]
    whole["oneOf"] = [{"required": ["stage"]}, {"required": ["stages"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _launch(definitions: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    """Section `launch`: its own fields and the options of a launcher. Those of the default launcher
    may stand without its name."""
    own = definitions.pop("Launch")["properties"]
    del own["name"]
    choice = _choice("launcher", definitions, left_out, own)
    for default in kind_of("launcher").defaults:
        if found := definitions.get(f"launcher-{default}"):
            found["required"].remove("name")
    return choice


def _stage_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of every entry of `stages`, besides its plugin's options."""
    own = {key: {"$ref": f"#/properties/{key}"} for key in ("data", "eval_data")}
    about = "Overrides the recipe's own training section."
    own["training"] = {"type": "object", "description": about, "tier": "advanced"}
    assert own.keys() | {"name"} == StageSection.model_fields.keys()
    return own


def _all(kind: str, left_out: list[str]) -> Iterator[tuple[str, Any]]:
    for entry in registry.entries(kind):
        try:
            yield entry.name, registry.load(entry)
        except TunewrightError as error:
            left_out.append(str(error))


def _define(name: str, model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Add a model to `$defs` and return a reference to it."""
    if name not in definitions:
        own = model.model_json_schema(schema_generator=_Described)
        definitions.update(own.pop("$defs", {}))
        definitions[name] = own
    return {"$ref": f"#/$defs/{name}"}


def _choice(
    kind: str,
    definitions: dict[str, Any],
    left_out: list[str],
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Schema of a section: a name, or a mapping with a name and that plugin's options. Plugins with
    equal options, like templates, share one definition."""
    names: list[str] = []
    groups: dict[Any, list[str]] = {}
    for name, plugin in _all(kind, left_out):
        names.append(name)
        groups.setdefault(plugin.Options, []).append(name)
    choices = []
    for model, group in groups.items():
        key = f"{kind}-{group[0]}" if len(group) == 1 else f"{kind}-options-{group[0]}"
        _define(key, model, definitions)
        own = definitions[key]
        title = {"const": group[0]} if len(group) == 1 else {"enum": group}
        own["properties"] = {"name": title, **(more or {}), **own.get("properties", {})}
        own["required"] = ["name", *own.get("required", [])]
        own["additionalProperties"] = False
        own.setdefault("type", "object")
        choices.append({"$ref": f"#/$defs/{key}"})
    return {"anyOf": [{"enum": names}, *choices]}
