"""The API of all runs, and of this machine."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunewright_web.page import Api, Call, Page
from tunewright_web.system import system

__all__ = ["PAGE"]


class RunsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: Literal[
        "", "queued", "running", "stopping", "completed", "interrupted", "failed", "lost"
    ] = Field("", description="Only runs of this status.")
    q: str = Field("", max_length=200, description="Words of name, model, adapter or stages.")


def _api_runs(call: Call) -> dict[str, Any]:
    found = call.web.runs.all(call.query.status, call.query.q)
    return {"runs": [run.as_dict() for run in found]}


def _api_system(call: Call) -> dict[str, Any]:
    return system(call.web.workspace.root)


PAGE = Page(
    "runs",
    api=(
        Api("GET", "/runs", _api_runs, "Runs of the workspace.", query=RunsQuery),
        Api("GET", "/system", _api_system, "Load, memory and disk of this machine."),
    ),
)
