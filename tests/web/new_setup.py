"""The draft of a good recipe with its data, and what is wrong with others."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.drafts import Drafts
from tunewright_web.web import Web

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Hello {n}"},
            {"role": "assistant", "content": "Hi"},
        ]
    }
    for n in range(20)
]
RECIPE = {
    "model": "tiny",
    "family": "qwen",
    "template": "chatml",
    "data": [{"path": "rows.jsonl"}],
    "stage": "sft",
    "output": "runs/first",
}


@pytest.fixture
def rows(web: Web) -> Path:
    file = web.workspace.root / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture
def draft(client: TestClient, rows: Path) -> str:
    """Address of the wizard of a good recipe."""
    made = client.post("/api/v1/drafts", json={"recipe": RECIPE})
    assert made.status_code == 201, made.text
    return f"/new/{made.json()['id']}"


def texts(web: Web, draft: str) -> dict[str, str]:
    return Drafts(web.workspace.drafts).get(draft.rpartition("/")[2]).texts


def problems(client: TestClient, **changes: object) -> dict[str, str]:
    """Problems of the recipe with changes: place → message."""
    recipe = {key: value for key, value in {**RECIPE, **changes}.items() if value is not None}
    answer = client.post("/api/v1/check", json={"recipe": recipe})
    assert answer.status_code == 200, answer.text
    return {
        ".".join(map(str, each["path"])): f"{each['message']} ({each['hint']})"
        for each in answer.json()["problems"]
    }
