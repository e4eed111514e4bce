"""Requests to an endpoint of tools."""

import json
import os
from typing import Any

import httpx2

from tunewright import RecipeError, RunError

_LONGEST = 100_000  # characters of a result
_BYTES = 10_000_000  # of a response


def tools(options: Any, name: str) -> list[dict[str, Any]]:
    """Tools of the endpoint. options: Http.Options. Raises RecipeError."""
    place, url = f"environment {name}", f"{options.url.rstrip('/')}/tools"
    try:
        found = json.loads(_sent("GET", url, options))["tools"]
        for tool in found:
            if not isinstance(tool["function"]["name"], str):
                raise TypeError("a name is no text")
    except (httpx2.HTTPError, _Wrong) as error:
        raise RecipeError(f"{url}: {error}", place=place) from error
    except (ValueError, TypeError, KeyError) as error:
        problem = f'{url}: the answer is not JSON of the form {{"tools": [...]}}'
        raise RecipeError(
            problem, place=place, hint="OpenAI's JSON schemas of functions"
        ) from error
    return list(found)


def call(options: Any, name: str, body: dict[str, Any]) -> tuple[str, float | None]:
    """Result and reward of a call. Raises ValueError if the endpoint refuses it or is late,
    RunError if it is gone or answers otherwise."""
    place, url = f"environment {name}", f"{options.url.rstrip('/')}/call"
    try:
        found = json.loads(_sent("POST", url, options, body))
        reward = found.get("reward")
        return str(found["result"])[:_LONGEST], None if reward is None else float(reward)
    except httpx2.TimeoutException:
        raise ValueError(f"no result within {options.timeout:g} seconds") from None
    except httpx2.HTTPError as error:
        raise RunError(f"{url}: {error or type(error).__name__}", place=place) from error
    except _Wrong as error:
        if error.status < 500:
            raise ValueError(str(error)) from error
        raise RunError(f"{url}: {error}", place=place) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f'{url}: the answer is not JSON of the form {{"result": text}}'
        raise RunError(problem, place=place) from error


class _Wrong(Exception):
    """A response without success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"answers {status}: {' '.join(text.split())[:300]}")
        self.status = status


def _sent(method: str, url: str, options: Any, body: dict[str, Any] | None = None) -> bytes:
    headers = {}
    if (variable := options.token_variable) is not None:
        if not os.environ.get(variable):
            raise RecipeError(f"{url}: the environment variable {variable} holds no token")
        headers["Authorization"] = f"Bearer {os.environ[variable]}"
    # no redirect is followed: the token is for one endpoint
    with httpx2.stream(
        method, url, json=body, headers=headers, timeout=options.timeout, trust_env=False
    ) as response:
        given = b""
        for part in response.iter_bytes():
            given += part
            if len(given) > _BYTES:
                raise _Wrong(response.status_code, f"more than {_BYTES} bytes")
        if response.status_code != 200:
            raise _Wrong(response.status_code, given.decode(errors="replace"))
        return given
