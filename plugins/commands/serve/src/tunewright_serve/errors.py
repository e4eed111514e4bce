"""Errors of requests: an HTTP status and OpenAI's JSON."""

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from tunewright import RowError, RunError, TunewrightError
from tunewright.errors import did_you_mean
from tunewright.inference import Busy
from tunewright_serve.sse import Json

__all__ = ["ApiError", "api_error", "error_response", "unavailable", "validation_error"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A refused request.

    param: the field that is wrong. code: what programs can compare, such as model_not_found.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.headers = headers or {}

    @property
    def type(self) -> str:
        default = "invalid_request_error" if self.status < 500 else "server_error"
        return _TYPES.get(self.status, default)

    def as_dict(self, path: str = "") -> dict[str, Any]:
        """JSON of the error, in Anthropic's form for the paths of its wire."""
        if path.startswith("/v1/messages"):
            kind = "api_error" if self.type == "server_error" else self.type
            return {"type": "error", "error": {"type": kind, "message": self.message}}
        fields = {"type": self.type, "param": self.param, "code": self.code}
        return {"error": {"message": self.message} | fields}


def error_response(error: ApiError, path: str) -> Response:
    return Json(error.as_dict(path), error.status, headers=error.headers)


def api_error(error: Exception) -> ApiError:
    """The answer to an exception. No message of an unknown one is shown: it may hold anything."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        hint = {"Retry-After": "1"}
        return ApiError(error.problem, status=429, code="queue_full", headers=hint)
    if isinstance(error, RowError):
        return ApiError(str(error), param=error.place or None)
    if isinstance(error, RunError):
        return unavailable(str(error))
    if isinstance(error, TunewrightError):
        return ApiError(str(error), status=500)
    if isinstance(error, TimeoutError):
        return ApiError("the answer took longer than --timeout", status=504, code="timeout")
    return ApiError(f"internal error: {type(error).__name__}", status=500)


def unavailable(message: str) -> ApiError:
    """The answer where the engine does not run: it may be starting again."""
    later = {"Retry-After": "5"}
    return ApiError(message, status=503, code="engine_unavailable", headers=later)


def validation_error(error: ValidationError, fields: Collection[str]) -> ApiError:
    """The first problem of a body. fields: those that there are, for a hint."""
    found = error.errors(include_url=False, include_input=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    param = _path(first["loc"])
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    if first["type"] == "extra_forbidden":
        near = did_you_mean(param, fields)
        message = f"{param}: there is no such field"
        message += f" ({near})" if near.startswith("did") else ""
    return ApiError(message, param=param or None)


def _path(place: tuple[int | str, ...]) -> str:
    """messages[0].role, without the names that pydantic gives to the types of a union."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in ("str", "int") or not part.isidentifier() or not part[0].islower():
            break
        else:
            path += f".{part}" if path else part
    return path
