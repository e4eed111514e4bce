"""A run whose model and data are here asks nobody anything: no telemetry, ours or a library's."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tunewright.run import train


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address and name that is asked for while the test lasts; none is reached."""
    found: list[str] = []

    def note(*arguments: Any, **_: Any) -> None:
        found.append(repr(arguments[-1] if len(arguments) == 2 else arguments))
        raise OSError("the test has no network")

    for method in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, method, note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", False
    )  # nothing else keeps libraries from asking
    monkeypatch.delenv("CI", raising=False)
    return found


@pytest.mark.slow
def test_a_run_asks_nobody(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "data.jsonl").write_text(
        '{"instruction": "Say hello.", "output": "Hello."}\n' * 4, "utf-8"
    )
    recipe = {
        "model": "tiny",
        "family": "qwen",
        "adapter": "lora",
        "data": [{"path": str(tmp_path / "data.jsonl")}],
        "stage": "sft",
        "training": {"max_steps": 2},
        "output": str(tmp_path / "run"),
        "loggers": ["console", "jsonl", "plot", "card", "tensorboard"],
    }
    assert train(recipe).steps == 2
    assert asked == []


def test_the_test_would_notice(asked: list[str]) -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("example.org", 80), timeout=1)
    assert asked
