"""Request to a reward endpoint."""

import json
import os
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener


class _Stay(HTTPRedirectHandler):
    """Refuses redirects: the token is for one endpoint, and a POST would become a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def ask(prompts: list[str], completions: list[str], options: Any) -> list[float | None]:
    """Request rewards from the endpoint. options: Http.Options. Raises ValueError and
    ConnectionError, which name the endpoint."""
    url, variable = options.url, options.token_variable
    where = urlsplit(url)
    if where.scheme not in ("http", "https") or not where.hostname:
        raise ValueError(f"{url}: give an address that begins with http:// or https://")
    if where.username is not None:
        raise ValueError(
            f"{where.scheme}://…@{where.hostname}: give no password in the address, "
            "but token_variable"
        )
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if variable is not None:
        if not os.environ.get(variable):
            raise ValueError(f"{url}: the environment variable {variable} holds no token")
        headers["Authorization"] = f"Bearer {os.environ[variable]}"
    body = json.dumps({"prompts": prompts, "completions": completions}).encode()
    request = Request(url, body, headers, method="POST")  # noqa: S310 - its scheme is looked at above
    return _rewards(url, _post(request, options.timeout))


def _post(request: Request, timeout: float) -> bytes:
    try:
        with build_opener(_Stay).open(request, timeout=timeout) as response:
            given: bytes = response.read()
            return given
    except HTTPError as error:
        error.close()  # the error is also the response
        raise ConnectionError(f"{request.full_url}: answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"{request.full_url}: {error}") from error


def _rewards(url: str, given: bytes) -> list[float | None]:
    try:
        rewards = json.loads(given)["rewards"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{url}: the answer is not JSON of the form {{"rewards": [...]}}'
        ) from error
    if not isinstance(rewards, list):
        raise ValueError(f"{url}: `rewards` is no list")
    return rewards
