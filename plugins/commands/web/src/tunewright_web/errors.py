"""Errors of requests: a status, and one shape for pages and the API."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from tunewright.errors import Problem, RecipeError, TunewrightError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["WebError", "web_error"]


class WebError(Exception):
    """A refused request: what was found and what is expected, and the remedy.

    problems: of single fields of a recipe or a form, each with the path of its field.
    """

    def __init__(
        self, error: str, hint: str = "", *, status: int = 400, problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(error)
        self.error, self.hint, self.status = error, hint, status
        self.problems = tuple(problems)

    def as_dict(self) -> dict[str, Any]:
        """The error as the API gives it."""
        found: dict[str, Any] = {"error": self.error, "hint": self.hint}
        if self.problems:
            found["problems"] = [
                {"path": list(each.path), "message": each.message, "hint": each.hint}
                for each in self.problems
            ]
        return found


def web_error(error: Exception) -> WebError:
    """The answer to an exception. The text of an unknown one is not shown: it may hold anything."""
    if isinstance(error, WebError):
        return error
    if isinstance(error, TunewrightError):
        status = 422 if isinstance(error, RecipeError) else 409
        problem = f"{error.place}: {error.problem}" if error.place else error.problem
        problems = getattr(error, "problems", ())
        return WebError(problem, error.hint, status=status, problems=problems)
    if isinstance(error, HTTPException):
        said = {404: "there is no such page", 405: "this address takes no such request"}
        text = said.get(error.status_code, HTTPStatus(error.status_code).phrase)
        return WebError(text, status=error.status_code)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return WebError(f"{place}{error.strerror or type(error).__name__}", status=500)
    if isinstance(error, ValueError):
        from pydantic import ValidationError

        if isinstance(error, ValidationError):
            return _invalid(error)
    hint = "the traceback is where the server was started; please report it"
    return WebError(f"internal error: {type(error).__name__}", hint, status=500)


def _invalid(error: "ValidationError") -> WebError:
    problems = [
        Problem(tuple(each["loc"]), each["msg"]) for each in error.errors(include_url=False)
    ]
    first = problems[0]
    place = ".".join(map(str, first.path))
    text = f"{place}: {first.message}" if place else first.message
    return WebError(text, status=422, problems=problems)
