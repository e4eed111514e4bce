"""Checkpoints of the hub: what is fetched, and one clear line where nothing can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import fake_hub

from tunewright import RunError

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
    """Run `hub.locate` in a process that knows this hub only."""
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


@pytest.mark.parametrize(
    "model", ["runs/a", "./runs/model", "/nowhere/model", "~nobody-is-called-so/x", "a\0b", "link"]
)
def test_what_was_meant_as_a_folder_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """A run folder whose model/ is missing would be looked up, and perhaps found, at the hub."""
    from tunewright_hf.models import hub

    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_snapshot", lambda *_: pytest.fail("the hub was asked"))
    for asked in (lambda: hub.locate(model), lambda: hub.read_config(model, None)):
        with pytest.raises(RunError) as caught:
            asked()
        assert caught.value.problem == "there is no such folder"
    assert ("a folder runs is here" in caught.value.hint) == (model == "runs/a")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    from tunewright_hf.models import hub

    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is not a folder"):
        hub.locate(str(tmp_path / "file"))


def test_an_id_of_the_hub_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright_hf.models import hub

    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "_snapshot", lambda model, *_: asked.append(model) or tmp_path)
    assert hub.locate("Qwen/Qwen3-0.6B") == hub.locate("gpt2") == tmp_path
    assert asked == ["Qwen/Qwen3-0.6B", "gpt2"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "cannot be read: Expecting property name"),
        (b"[" * 100_000, "cannot be read: it is nested too deep"),
        (b'{"a":' * 100_000, "cannot be read: it is nested too deep"),
        (b"\xff\xfe\x00", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read: Exceeds the limit"),
        (b'{"a": "\\ud800"}', "cannot be read: 'utf-8' codec can't encode"),
        (b"[]", "holds a list, not an object"),
    ],
    ids=range(7),
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes, problem: str) -> None:
    from tunewright_hf.models.hub import read_config

    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_config(str(tmp_path), None)
    assert caught.value.problem.startswith(problem)
    assert "\n" not in str(caught.value)


def test_config_of_a_folder(tmp_path: Path) -> None:
    from tunewright_hf.models.hub import read_config

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_config(str(tmp_path), None) == {"model_type": "llama"}
    (tmp_path / "config.json").unlink()
    assert read_config(str(tmp_path), None) is None
