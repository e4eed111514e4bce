"""Checkpoints of the hub: what is fetched, and one clear line where nothing can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import fake_hub

FILES = {
    "config.json": b'{"model_type": "qwen3"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "consolidated.safetensors": b"the same weights for another program",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"code",
    "original/params.json": b"{}",
}
LOCATE = """
import sys
from tunewright_hf.models import hub
try:
    asked = {"weights": "-w" in sys.argv, "trust_remote_code": "-t" in sys.argv}
    folder = hub.locate(sys.argv[1], sys.argv[2] or None, **asked)
    print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
except Exception as error:
    print(type(error).__name__, error)
"""


def locate(
    home: Path, url: str, model: str, revision: str = "", *flags: str, offline: bool = False
) -> str:
    """What `hub.locate` gives in a process that knows this hub only."""
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    command = [sys.executable, "-c", LOCATE, model, revision, *flags]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_fetches_no_pickle_and_no_code(tmp_path: Path) -> None:
    with fake_hub(FILES) as hub:
        assert locate(tmp_path, hub.url, "a/b") == "config.json tokenizer.json"
        assert (
            locate(tmp_path, hub.url, "a/b", "", "-w")
            == "config.json model.safetensors tokenizer.json"
        )
        assert not [path for path in hub.asked if path.endswith((".bin", ".py"))]
        trusted = locate(tmp_path, hub.url, "a/b", "", "-w", "-t")
        assert trusted == "config.json model.safetensors modeling_own.py tokenizer.json"


def test_offline_takes_the_cache(tmp_path: Path) -> None:
    with fake_hub(FILES) as hub:
        wanted = locate(tmp_path, hub.url, "a/b", "", "-w")
        asked = len(hub.asked)
        assert locate(tmp_path, hub.url, "a/b", "", "-w", offline=True) == wanted
        assert len(hub.asked) == asked
        found = locate(tmp_path / "empty", hub.url, "a/b", offline=True)
    assert found == "RunError a/b: is not in the local cache (unset HF_HUB_OFFLINE to download it)"


def test_no_network(tmp_path: Path) -> None:
    found = locate(tmp_path, "http://127.0.0.1:9", "a/b")
    assert found.startswith(
        "RunError a/b: is neither a folder here nor in the local cache, and http://127.0.0.1:9"
    )
    assert "\n" not in found


@pytest.mark.parametrize(
    ("model", "revision", "problem"),
    [
        ("a/none", "", "a/none: is neither a folder here nor a model on the hub"),
        ("a/gated", "", "a/gated: is gated"),
        ("a/b", "nope", "a/b: the hub has no revision 'nope' of it"),
        ("./missing", "", "./missing: there is no such folder"),
        ("a/b/c", "", "a/b/c: there is no such folder"),
    ],
)
def test_one_clear_line(tmp_path: Path, model: str, revision: str, problem: str) -> None:
    with fake_hub(FILES) as hub:
        found = locate(tmp_path, hub.url, model, revision)
    assert found.startswith(f"RunError {problem}")
    assert "\n" not in found


def test_config_of_a_folder(tmp_path: Path) -> None:
    from tunewright_hf.models.hub import read_config

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_config(str(tmp_path), None) == {"model_type": "llama"}
    (tmp_path / "config.json").unlink()
    assert read_config(str(tmp_path), None) is None
