"""A JSON schema of recipes, made from the Options of all installed plugins, so that editors
complete and check them."""

import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from tunewright import registry
from tunewright.errors import TunewrightError
from tunewright.plugin import described
from tunewright.recipe import Recipe, StageSection


class _Described(GenerateJsonSchema):
    """Takes a field's description from the docstring below it."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        made = super().model_schema(schema)
        for name, text in described(schema["cls"]).items():
            if name in made.get("properties", {}):
                made["properties"][name].setdefault("description", text)
        return made


_SECTIONS = {"family", "template", "quantizer", "adapter", "dataset", "optimizer", "engine"}


def schema() -> dict[str, Any]:
    """The schema. A plugin that cannot be imported is left out, and said on standard error."""
    whole = Recipe.model_json_schema(schema_generator=_Described)
    definitions, fields = whole["$defs"], whole["properties"]
    for kind in _SECTIONS:
        fields[kind] = {
            "description": fields[kind].get("description", ""),
            **_sections(kind, definitions),
        }
    for kind in ("logger", "accelerator"):
        fields[f"{kind}s"]["items"] = _sections(kind, definitions)
    stage = {key: fields.get(key, {}) for key in StageSection.model_fields if key != "name"}
    stage["training"] = {
        "type": "object",
        "description": "laid over the recipe's own training section",
    }
    fields["stage"] = _sections("stage", definitions, stage)
    fields["stages"]["items"] = fields["stage"]
    entries = [_options(plugin.Entry, definitions) for _, plugin in _plugins("dataset")]
    fields["data"]["items"] = {"anyOf": entries}
    fields["eval_data"]["additionalProperties"]["items"] = {"anyOf": entries}
    whole["required"] = ["model", "output"]
    whole["oneOf"] = [{"required": ["stage"]}, {"required": ["stages"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _plugins(kind: str) -> list[tuple[str, Any]]:
    found = []
    for entry in registry.entries(kind):
        try:
            found.append((entry.name, registry.load(entry)))
        except TunewrightError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def _options(model: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = model.model_json_schema(schema_generator=_Described)
    definitions.update(own.pop("$defs", {}))
    return own


def _sections(
    kind: str, definitions: dict[str, Any], more: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A name, or a mapping with a name and that plugin's options."""
    choices: list[dict[str, Any]] = []
    for name, plugin in _plugins(kind):
        own = _options(plugin.Options, definitions)
        properties = {"name": {"const": name}, **(more or {}), **own.get("properties", {})}
        required = ["name", *own.get("required", [])]
        choices.append(
            {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        )
    return {
        "anyOf": [{"enum": [choice["properties"]["name"]["const"] for choice in choices]}, *choices]
    }
