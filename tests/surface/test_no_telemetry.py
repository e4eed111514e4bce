"""A run whose model and data are here asks nobody anything: no telemetry, ours or a library's."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from tunewright import registry
from tunewright.run import train
from tunewright.types import LoadRequest
from tunewright_conformance.doubles import FakeRun
from tunewright_dataset_chat import hub as data_hub
from tunewright_dataset_chat import remote
from tunewright_hf.models import hub


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


# ---- telemetry is off whenever the hub is asked, and nothing is changed before that --------------

IMPORTS = """
import os, sys
import huggingface_hub.constants as constants
before = dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY
import tunewright_hf, tunewright_hf.models.hub, tunewright_hf.models.family
assert before == (dict(os.environ), constants.HF_HUB_DISABLE_TELEMETRY), "changed by an import"
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""


@pytest.fixture
def telemetry_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")


def test_an_import_changes_nothing() -> None:
    names = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    env = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def _load_tiny_tokenizer() -> None:
    family = registry.load(registry.find("family", "qwen"))
    run = FakeRun()
    request = LoadRequest("tiny", weights="none")
    family(family.Options(), "qwen").load_model(run=run, request=request)


def _load_rows_of_the_hub() -> None:
    entry = SimpleNamespace(path="me/set", subset=None, folder=None, revision=None)
    data_hub._hf(entry, "train")


@pytest.mark.parametrize(
    ("ask", "library"),
    [
        (lambda: hub.locate("owner/name"), "huggingface_hub.snapshot_download"),
        (lambda: hub.read_config("owner/name", None), "huggingface_hub.snapshot_download"),
        (_load_rows_of_the_hub, "datasets.load_dataset"),
        (lambda: remote.open_store("hf://datasets/me/set/a.jsonl", "data"), "fsspec.url_to_fs"),
        (_load_tiny_tokenizer, "tunewright_hf.models.loading.finish"),
    ],
)
@pytest.mark.usefixtures("telemetry_on")
def test_telemetry_is_off_when_a_library_is_called(
    ask: Callable[[], Any], library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def called(*arguments: Any, **how: Any) -> Any:
        seen.append((constants.HF_HUB_DISABLE_TELEMETRY, os.environ["HF_HUB_DISABLE_TELEMETRY"]))
        return tmp_path, ""

    if library == "huggingface_hub.snapshot_download":
        monkeypatch.setattr(
            huggingface_hub, "snapshot_download", lambda *a, **k: called()[0], raising=False
        )
    else:
        monkeypatch.setattr(library, called)
    ask()
    assert seen == [(True, "1")]
    assert "torch/" not in huggingface_hub.utils.build_hf_headers()["user-agent"]
