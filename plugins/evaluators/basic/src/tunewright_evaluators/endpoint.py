"""Chat completions of an OpenAI-compatible API."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tunewright import RecipeError, RunError

_LONGEST_PAUSE = 30.0  # seconds
_LARGEST = 2**24  # bytes of a reply


class _Stay(HTTPRedirectHandler):
    """Refuses redirects: the token is for one endpoint."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """Model that answers prompts. options: EndpointOptions. Raises RecipeError for a wrong address
    or a missing token."""

    def __init__(self, options: Any) -> None:
        where = urlsplit(options.url)
        if not where.hostname or where.username is not None:
            hint = "give no password in it, but token_variable"
            raise RecipeError("expected http://HOST/v1", place="url", hint=hint)
        self._url = f"{options.url.rstrip('/')}/chat/completions"
        self._options = options
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if (variable := options.token_variable) is not None:
            if not os.environ.get(variable):
                problem = f"the environment variable {variable} holds no token"
                raise RecipeError(problem, place="token_variable")
            self._headers["Authorization"] = f"Bearer {os.environ[variable]}"

    def ask(self, prompt: str) -> str:
        """The reply to a prompt, greedily. Raises RunError."""
        body = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }
        given = self._post(json.dumps(body).encode())
        try:
            text = json.loads(given)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise RunError("the reply is no chat completion", place=self._url) from error
        return text if isinstance(text, str) else ""

    def _post(self, body: bytes) -> bytes:
        # the options check the scheme
        request = Request(self._url, body, self._headers, method="POST")  # noqa: S310
        for attempt in range(self._options.retries + 1):
            try:
                with build_opener(_Stay).open(request, timeout=self._options.timeout) as response:
                    given: bytes = response.read(_LARGEST)
                    return given
            except HTTPError as error:
                error.close()  # the error is also the response
                problem, pause = f"answers {error.code} {error.reason}", _pause(error, attempt)
                if error.code != 429 and error.code < 500:
                    break
            except (OSError, HTTPException) as error:
                problem, pause = f"cannot be reached: {error}", float(2**attempt)
            if attempt < self._options.retries:
                time.sleep(min(pause, _LONGEST_PAUSE))
        raise RunError(problem, place=self._url)


def _pause(error: HTTPError, attempt: int) -> float:
    """Seconds to wait: those that the server names, else ever more."""
    named = error.headers.get("Retry-After", "")
    return float(named) if named.isdecimal() else float(2**attempt)


def at_once(
    workers: int, ask: Callable[[Any], dict[str, Any]], asked: Iterable[Any]
) -> Iterator[dict[str, Any]]:
    """Call with each, several at once, and yield what comes, in any order."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            for each in as_completed([pool.submit(ask, one) for one in asked]):
                yield each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
