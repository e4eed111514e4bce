"""Removal of nulls that Arrow added to objects, from tool calls and schemas.

A struct column of Arrow (Parquet, `save_to_disk`) has the keys of all rows, with null where a row
had none. The data does not show which nulls were written. They count as added, except where null
has a meaning in JSON Schema that fits the rest of the schema:

- `default: null` stays if the schema allows null and the enclosing object does not
  require it (generators write optional parameters in this way);
- `const: null` stays if nothing else gives the value;
- items of lists stay (`enum: [null, …]`): Arrow adds none.

JSON strings are not changed: every null in them was written.
"""

from typing import Any

from tunewright import RowError

#: keywords whose value is an object of named schemas, one schema, or a list of schemas
_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_ONE = frozenset(
    ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
)
_MANY = frozenset(("anyOf", "oneOf", "allOf", "prefixItems", "items"))
#: keywords that give a value: a const of null beside them was added
_TYPES = frozenset(("type", "enum", "anyOf", "oneOf", "allOf", "$ref", "properties", "items"))


def without_nulls(value: Any) -> Any:
    """The value without null members of its objects. Raises RowError if it is not JSON."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if value is not None and not isinstance(value, str | int | float):
        hint = "write it as text"
        raise RowError(f"tools: found {type(value).__name__}, which JSON does not have", hint=hint)
    return value


def schema_without_nulls(schema: Any, required: bool = False) -> Any:
    """A JSON schema without the nulls that Arrow added.

    required: it is a required property of its object.
    """
    if not isinstance(schema, dict):
        return schema
    found = {key: _keyword(key, item, schema) for key, item in schema.items() if item is not None}
    if "default" in schema and schema["default"] is None and not required and _allows_null(found):
        found["default"] = None
    if "const" in schema and schema["const"] is None and not _TYPES & found.keys():
        found["const"] = None
    return {key: found[key] for key in schema if key in found}


def _keyword(key: str, value: Any, schema: dict[str, Any]) -> Any:
    if key in _MAPS and isinstance(value, dict):
        needed = schema.get("required") if key == "properties" else None
        names = needed if isinstance(needed, list) else []
        return {
            name: schema_without_nulls(item, name in names)
            for name, item in value.items()
            if item is not None
        }
    if key in _MANY and isinstance(value, list):
        return [schema_without_nulls(item) for item in value]
    if key in _ONE:
        return schema_without_nulls(value)
    return without_nulls(value)


def _allows_null(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type")
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return True
    values = schema.get("enum")
    if schema.get("nullable") is True or (isinstance(values, list) and None in values):
        return True
    choices = [schema.get(key) for key in ("anyOf", "oneOf")]
    return any(
        isinstance(one, dict) and _allows_null(one)
        for choice in choices
        if isinstance(choice, list)
        for one in choice
    )
