"""The document of GET /openapi.json, from the types of the bodies."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter

__all__ = ["openapi"]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi(
    posts: Mapping[str, TypeAdapter[Any]], gets: Mapping[str, str], without_token: Collection[str]
) -> dict[str, Any]:
    """posts: path → body; gets: path → the media type of the response. without_token: paths."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for path, body in posts.items():
        schema = body.json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {schema["title"]: schema}
        reference = {"schema": {"$ref": f"#/components/schemas/{schema['title']}"}}
        can_stream = "stream" in schema["properties"]
        streams: dict[str, Any] = {"text/event-stream": {}} if can_stream else {}
        paths[path] = {
            "post": _operation({"application/json": {}} | streams)
            | {"requestBody": {"required": True, "content": {"application/json": reference}}}
        }
    for path, media in gets.items():
        named = path[path.find("{") + 1 : path.find("}")] if "{" in path else ""
        parameter = {"name": named, "in": "path", "required": True, "schema": {"type": "string"}}
        operation = _operation({media: {}}) | ({"security": []} if path in without_token else {})
        paths[path] = {"get": operation | ({"parameters": [parameter]} if named else {})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tunewright serve", "version": "1"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(content: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "default": {"description": "An error.", "content": error},
        }
    }
