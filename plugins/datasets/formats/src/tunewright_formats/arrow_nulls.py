"""Nulls that Arrow added to objects, which are no part of a call or of a schema.

A struct column of Arrow (Parquet, `save_to_disk`) has the keys of all rows, and null where a row
had none. Whether a null was written cannot be told from the data any more. The rule: it was not,
but where JSON Schema gives null a meaning that fits the rest of the schema:

- `default: null` stays where the schema allows null, and the object that it belongs to does not
  require it (so do generators write an optional parameter);
- `const: null` stays where nothing else says what the value is;
- items of lists stay as they are (`enum: [null, …]`): Arrow adds none.

Texts of JSON are not changed at all: in them every null was written.
"""

from typing import Any

from tunewright import RowError

#: keywords whose value is an object of schemas by name, one schema, or a list of schemas
_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_ONE = frozenset(
    ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
)
_MANY = frozenset(("anyOf", "oneOf", "allOf", "prefixItems", "items"))
#: keywords that say what a value is: a const of null beside them was added
_TYPES = frozenset(("type", "enum", "anyOf", "oneOf", "allOf", "$ref", "properties", "items"))


def without_nulls(value: Any) -> Any:
    """The value without the null members of its objects. Raises RowError where it is no JSON."""
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

    required: the object that it is a property of must have it.
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
