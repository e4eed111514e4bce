"""The document of GET /api/v1/openapi.json, from the routes that pages declare."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from tunewright_web.page import PREFIX, Api, Page

__all__ = ["openapi"]

_PROBLEM = {
    "type": "object",
    "required": ["path", "message", "hint"],
    "properties": {
        "path": {"type": "array", "items": {"type": ["string", "integer"]}},
        "message": {"type": "string"},
        "hint": {"type": "string"},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "hint"],
    "properties": {
        "error": {"type": "string"},
        "hint": {"type": "string"},
        "problems": {"type": "array", "items": _PROBLEM},
    },
}


def openapi(pages: Iterable[Page]) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, Any] = {}
    for page in pages:
        for api in page.api:
            plain = re.sub(r"\{(\w+):\w+\}", r"{\1}", api.path)
            operation = _operation(api, schemas) | {"tags": [page.name]}
            paths.setdefault(PREFIX + plain, {})[api.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "tunewright web", "version": "1"},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(api: Api, schemas: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)(?::\w+)?\}", api.path)
    ]
    if api.query:
        schema = api.query.model_json_schema()
        required = schema.get("required", [])
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": each}
            for name, each in schema["properties"].items()
        ]
    found: dict[str, Any] = {
        "summary": api.summary,
        "parameters": parameters,
        "responses": {
            str(api.status): {"description": api.summary, "content": {api.media: {}}},
            "default": {"description": "An error.", "content": error},
        },
    }
    if api.body:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(api.body, schemas)}},
        }
    return found


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, str]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    return {"$ref": f"#/components/schemas/{model.__name__}"}
