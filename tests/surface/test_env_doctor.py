"""`tunewright env doctor`: one line for each thing, and what to do about it."""

import json
import sys
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import tunewright_env
from tunewright import compatibility
from tunewright_env import checkup
from tunewright_env.checkup import Finding


def libraries(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Modules that the probe imports in place of the real ones."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_library_that_ends_the_process_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(
        tmp_path,
        monkeypatch,
        tw_good="__version__ = '1.2'\nprint('hello')\nprint('[1]')",
        tw_bad="raise ImportError('undefined symbol:\\n x')",
        tw_crash="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        tw_exit="raise SystemExit(0)",
        tw_last="",
    )
    found = checkup.probe(["tw_good", "tw_bad", "tw_crash", "tw_exit", "tw_none", "tw_last"])
    assert list(found) == ["tw_good", "tw_bad", "tw_crash", "tw_exit", "tw_none", "tw_last"]
    assert found["tw_good"] == {"name": "tw_good", "version": "1.2"}
    assert found["tw_bad"]["problem"] == "ImportError: undefined symbol: x"
    assert found["tw_crash"]["problem"] == "the import was ended by signal 11"
    assert found["tw_exit"]["problem"] == "SystemExit: 0"
    assert found["tw_none"]["missing"]
    assert "problem" not in found["tw_last"]


def test_a_library_that_hangs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(tmp_path, monkeypatch, tw_slow="import time\ntime.sleep(600)", tw_good="")
    monkeypatch.setattr(checkup, "SECONDS", 1)
    found = checkup.probe(["tw_slow", "tw_good"])
    assert "signal 9" in found["tw_slow"]["problem"]
    assert "problem" not in found["tw_good"]


def test_a_torchvision_of_another_torch_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(
        tmp_path,
        monkeypatch,
        torch="def zeros(*_): ...",
        torchvision="class ops:\n def nms(*_): raise RuntimeError('operator nms does not exist')",
    )
    found = checkup.probe(["torchvision"])["torchvision"]
    line = checkup.library("torchvision", found)
    assert line.state == "problem"
    assert "operator nms does not exist" in line.text
    assert line.remedy.startswith("it is built for another torch; pip install --force-reinstall")


@pytest.mark.parametrize(
    ("name", "found", "state", "remedy"),
    [
        ("torch", {"version": "2.14"}, "ok", ""),
        ("torch", {"problem": "no", "missing": True}, "problem", "everything"),
        ("flash_attn", {"problem": "no", "missing": True}, "note", "torch's own attention"),
        ("flash_attn", {"problem": "undefined symbol"}, "problem", "--force-reinstall flash-attn"),
    ],
)
def test_libraries(name: str, found: dict, state: str, remedy: str) -> None:
    line = checkup.library(name, found)
    assert line.state == state
    assert remedy in line.remedy


GPU = {"name": "NVIDIA A", "capability": "9.0", "free": 70e9, "total": 80e9}


@pytest.mark.parametrize(
    ("torch", "is_there", "state", "text"),
    [
        ({"devices": [GPU], "cuda": "13.0"}, True, "ok", "70 of 80 GB free"),
        (
            {"devices": [{**GPU, "capability": "7.5"}], "cuda": "13.0"},
            True,
            "note",
            "capability 7.5",
        ),
        ({"devices": [], "cuda": ""}, True, "problem", "this torch is for CPUs"),
        ({"devices": [], "cuda": "13.0"}, True, "problem", "does not see it"),
        ({"devices": [], "cuda": "13.0"}, False, "note", "runs on the CPU"),
        ({"devices": [], "cuda": "", "mps": True}, False, "note", "Apple"),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, torch: dict, is_there: bool, state: str, text: str
) -> None:
    monkeypatch.setattr(checkup, "has_nvidia_device", lambda: is_there)
    (line,) = checkup.devices(torch)
    assert (line.state, text in line.text) == (state, True)


def test_a_broken_torch_says_nothing_of_gpus() -> None:
    assert list(checkup.devices({"problem": "broken"})) == []


def test_full_and_locked_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3e9, total=64e6))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not/there"))
    *places, shared = checkup.disks()
    assert [line.state for line in places] == ["note"] * 3
    assert f"3 GB free in {tmp_path}/not/there" in places[0].text
    assert "--shm-size" in shared.remedy
    monkeypatch.setattr("os.access", lambda *_: False)
    assert {line.state for line in checkup.disks()} == {"problem", "note"}


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (None, "ok", "answers"),
        (urllib.error.HTTPError("u", 403, "no", {}, None), "ok", "answers"),  # type: ignore[arg-type]
        (
            urllib.error.URLError("Name or service not known"),
            "problem",
            "Name or service not known",
        ),
        (TimeoutError("timed out"), "problem", "timed out"),
    ],
)
def test_hub(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, state: str, text: str
) -> None:
    def answer(request: urllib.request.Request, timeout: float):
        assert (request.get_method(), request.full_url) == ("HEAD", "https://mirror.example")
        if error:
            raise error
        return nullcontext()

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    token, line = checkup.hub(network=True)
    assert "hf_secret" not in repr(token)
    assert (line.state, text in line.text) == (state, True)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", ""])
def test_offline_asks_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", None)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    assert list(checkup.hub(network=bool(variable)))[-1].text == "not asked: offline"


def test_plugins_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "outdated", lambda: [f"tw-{n}" for n in range(6)])
    *_, line = checkup.plugins()
    assert line.text.endswith("tw-0, tw-1, tw-2, tw-3 and 2 more")
    assert line.remedy == "tunewright plugins install --upgrade"


def test_an_untested_python_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    (line,) = checkup.python()
    assert line.state == "note"
    assert "the tests of Tunewright run on 3.11 to 3.13" in line.remedy


@pytest.mark.parametrize("as_json", [True, False])
def test_a_problem_is_exit_code_1(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        Finding("gpu", "note", "none"),
        Finding("library", "problem", "x is broken", "mend it"),
    ]
    monkeypatch.setattr(checkup, "findings", lambda network: iter(lines))
    with pytest.raises(typer.Exit):
        tunewright_env.doctor(offline=True, as_json=as_json)
    out = capsys.readouterr().out
    if as_json:
        assert [line["state"] for line in json.loads(out)] == ["note", "problem"]
    else:
        assert out.splitlines()[1:] == ["problem  library    x is broken (mend it)", "1 problems"]


@pytest.mark.slow
def test_real_libraries_of_this_checkout_work() -> None:
    found = checkup.probe(["torch", "torchvision"])
    assert [name for name, said in found.items() if "problem" in said] == []
    assert found["torch"]["version"].startswith("2.")
    assert isinstance(found["torch"]["devices"], list)
