"""JSON schemas of requests: checked before an engine compiles them, and made for forced calls."""

import json
from collections.abc import Iterator
from typing import Any

from tunewright_serve.errors import ApiError

__all__ = ["ANY_OBJECT", "call_schema", "check_schema"]

ANY_OBJECT: dict[str, Any] = {"type": "object"}
_TYPES = {"string", "number", "integer", "boolean", "null", "object", "array"}
_MAX_CHARACTERS, _MAX_DEPTH = 64_000, 32
#: keywords whose value is a schema, a list of schemas, or schemas by name
_ONE = ("additionalProperties", "items", "not", "contains", "propertyNames", "if", "then", "else")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")


def check_schema(schema: dict[str, Any], param: str) -> None:
    """Refuse what is no schema, or too large to be compiled. Raises ApiError."""
    if len(json.dumps(schema)) > _MAX_CHARACTERS:
        raise ApiError(f"{param}: the schema has over {_MAX_CHARACTERS} characters", param=param)
    open_: list[tuple[Any, int]] = [(schema, 0)]
    while open_:
        found, depth = open_.pop()
        if isinstance(found, bool):
            continue
        if not isinstance(found, dict):
            raise ApiError(f"{param}: a schema is a JSON object, not {found!r:.40}", param=param)
        if depth > _MAX_DEPTH:
            raise ApiError(f"{param}: the schema is over {_MAX_DEPTH} levels deep", param=param)
        _check_type(found, param)
        open_ += [(each, depth + 1) for each in _inside(found, param)]


def _check_type(schema: dict[str, Any], param: str) -> None:
    named = schema.get("type", [])
    for kind in named if isinstance(named, list) else [named]:
        if not isinstance(kind, str) or kind not in _TYPES:
            raise ApiError(f"{param}: there is no type {kind!r:.40} in JSON", param=param)
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        problem = f"{param}: $ref {reference!r:.80} does not begin with #; nothing is fetched"
        raise ApiError(problem, param=param)


def _inside(schema: dict[str, Any], param: str) -> Iterator[Any]:
    for keyword in _ONE:
        if keyword in schema:
            yield schema[keyword]
    for keyword, kind in [*((k, list) for k in _LISTS), *((k, dict) for k in _NAMED)]:
        if keyword not in schema:
            continue
        if not isinstance(schema[keyword], kind):
            raise ApiError(f"{param}: {keyword} is no {kind.__name__}", param=param)
        yield from schema[keyword] if kind is list else schema[keyword].values()


def call_schema(tools: list[dict[str, Any]], parallel: bool) -> dict[str, Any]:
    """Schema of a call of one of the tools: {name, arguments}; parallel: of a list of such."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or ANY_OBJECT,
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    one = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"type": "array", "items": one, "minItems": 1, "maxItems": 16} if parallel else one
