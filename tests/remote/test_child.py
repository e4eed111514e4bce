"""The engines vllm and sglang as child processes: their command lines, ends and restarts."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine_setup import INFO, request, text_of
from remote.setup import REPLY, environment, ids, lora, opened, recorded, run_of
from serve.serving import HELLO, served
from tunewright import RecipeError, RunError
from tunewright.inference import EngineRequest, Piece, answers
from tunewright.types import StageResult
from tunewright_engine_remote.child import Child

both = pytest.mark.parametrize("name", ["vllm", "sglang"])
TESTS = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An environment, a run, and the file with what the server was asked."""
    monkeypatch.setenv("STAND_IN_REPLY", " ".join(map(str, ids(REPLY))))
    monkeypatch.setenv("STAND_IN_RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = SimpleNamespace(folder=tmp_path, run=run_of(tmp_path), record=tmp_path / "record")
    found.options = {"environment": str(environment(tmp_path))}
    return found


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return "zombie" not in (status.read_text() if status.exists() else "")


def until(holds: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@both
def test_it_starts_answers_and_ends(name: str, site: Any) -> None:
    with opened(name, site.run, EngineRequest(slots=7), **site.options) as engine:
        assert engine.max_length == 512 and "generation" in engine.features
        assert text_of(list(answers(engine, request("hi")))) == REPLY
        start, asked = recorded(site.record)
        assert is_running(start["pid"])
    assert not is_running(start["pid"])
    assert not list(site.folder.glob("tunewright-*"))
    given = start["arguments"]
    slots = "--max-num-seqs" if name == "vllm" else "--max-running-requests"
    assert given[given.index(slots) + 1] == "7" and str(site.folder / "model") in given
    assert asked["path"] == "/v1/completions"
    assert asked["body"]["prompt"] == engine.encode(request("hi"))
    shown = [each for each in given if not each.startswith("--") and "/" not in each]
    assert max(map(len, shown)) < 25  # the token is not among them


@both
def test_adapters_by_name(name: str, site: Any) -> None:
    own = lora(site.folder / "own", rank_pattern={"x": 33})
    site.run.trained = StageResult(own, "adapter", 1, 1, {})
    adapters = {"pirate": lora(site.folder / "pirate")}
    with opened(name, site.run, EngineRequest(adapters=adapters), **site.options) as engine:
        assert engine.models == (site.run.recipe.model, "pirate")
        for model in (None, "pirate"):
            assert text_of(list(answers(engine, request("hi", model=model)))) == REPLY
    start, first, second = recorded(site.record)
    given = start["arguments"]
    modules = "--lora-modules" if name == "vllm" else "--lora-paths"
    at = given.index(modules)
    assert given[at + 1 : at + 3] == [f"policy={own}", f"adapter-0={adapters['pirate']}"]
    key = "model" if name == "vllm" else "lora_path"
    assert [first["body"][key], second["body"][key]] == ["policy", "adapter-0"]
    if name == "vllm":  # it takes certain ranks only, and 33 is none
        assert given[given.index("--max-lora-rank") + 1] == "64"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save, which vLLM does not apply"),
        ({"use_dora": True}, "has use_dora"),
        ({"peft_type": "IA3"}, "is an adapter of type IA3"),
        ({"bias": "all"}, "trains biases"),
        ({"r": 1024}, "above 512"),
    ],
)
def test_adapters_that_are_refused(config: dict[str, Any], says: str, site: Any) -> None:
    site.run.trained = StageResult(lora(site.folder / "own", **config), "adapter", 1, 1, {})
    with pytest.raises(RunError, match=says) as caught:
        opened("vllm", site.run, EngineRequest(), **site.options)
    assert "engine.merge: true" in str(caught.value)
    assert not site.record.exists() and not list(site.folder.glob("tunewright-*"))


def test_an_adapter_without_weights_is_refused(site: Any) -> None:
    """vLLM would serve the base model under its name (#55193)."""
    from safetensors.numpy import save_file

    own = lora(site.folder / "own")
    save_file({}, own / "adapter_model.safetensors")
    site.run.trained = StageResult(own, "adapter", 1, 1, {})
    with pytest.raises(RunError, match="would serve the model without it"):
        opened("vllm", site.run, EngineRequest(), **site.options)


@pytest.mark.parametrize(
    ("fault", "says", "log"),
    [
        (
            "illegal instruction",
            r"vLLM: was ended by SIGILL, Illegal instruction \(it was built for another CPU\) "
            r"after \d s; it said nothing",
            "",
        ),
        ("dies", r"vLLM: ended with code 3 after \d s; it said 'ValueError: no device", "starting"),
        ("hangs", r"vLLM: did not answer within 1 seconds; it said 'INFO loading'", "loading"),
    ],
)
def test_a_server_that_does_not_start(
    fault: str, says: str, log: str, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", fault)
    seconds = 1 if fault == "hangs" else 30
    with pytest.raises(RunError, match=says):
        opened("vllm", site.run, EngineRequest(), start_seconds=seconds, **site.options)
    assert log in next(site.folder.glob("tunewright-*/vllm.log")).read_text()
    assert not is_running(recorded(site.record)[0]["pid"])


def test_a_slow_server_is_awaited(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "slow")
    with opened("vllm", site.run, EngineRequest(), **site.options) as engine:
        assert text_of(list(answers(engine, request("hi")))) == REPLY


@both
def test_a_failed_answer_names_the_log_which_stays(
    name: str, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server tells no cause; its log does."""
    monkeypatch.setenv("STAND_IN", "fails")
    says = (
        rf"EngineCore died; its log, .*/{name}.log, says 'RuntimeError: Unsupported configuration: "
        r"head_dim=16', 'vllm.EngineDeadError: EngineCore encountered an issue.'$"
    )
    with opened(name, site.run, EngineRequest(), **site.options) as engine:
        for _ in range(2):
            with pytest.raises(RunError, match=says):
                list(answers(engine, request("hi")))
    (left,) = site.folder.glob("tunewright-*/*")
    assert left.name == f"{name}.log" and "head_dim=16" in left.read_text()


def test_a_killed_server_is_started_again(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_PAUSE", "0.2")
    heard: list[Piece] = []
    with opened("vllm", site.run, EngineRequest(), **site.options) as engine:
        engine.submit(request("hi"), heard.append)
        until(lambda: heard)
        os.kill(recorded(site.record)[0]["pid"], signal.SIGKILL)
        until(lambda: heard[-1].finish_reason)
        assert heard[-1].finish_reason == "error"

        def answer() -> str:
            try:
                return text_of(list(answers(engine, request("hi"))))
            except RunError as error:
                return str(error)

        with served(engine, info=INFO) as running:
            until(lambda: "being started again" in answer())
            assert "was ended by SIGKILL, Killed (perhaps the machine ran out of" in answer()
            reply = running.chat()
            assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
            assert reply.headers["retry-after"] == "5" and "SIGKILL" in reply.error["message"]
            until(lambda: answer() == REPLY)
            assert running.chat().json["choices"][0]["message"]["content"] == REPLY
    assert len({each["pid"] for each in recorded(site.record) if "pid" in each}) == 2


def test_answers_of_a_killed_server_get_503(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_PAUSE", "0.2")
    with (
        opened("vllm", site.run, EngineRequest(), **site.options) as engine,
        served(engine, info=INFO) as running,
        ThreadPoolExecutor(3) as pool,
    ):
        whole = pool.submit(running.chat)
        message = {"model": "m", "max_tokens": 9, "messages": HELLO}
        other = pool.submit(running.ask, "/v1/messages", message)
        streamed = pool.submit(running.chat, stream=True)
        until(lambda: engine.stats().completion_tokens or engine.stats().running == 3)
        time.sleep(0.4)  # their first words
        os.kill(recorded(site.record)[0]["pid"], signal.SIGKILL)
        reply = whole.result()
        assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
        assert reply.error["type"] == "server_error" and reply.headers["retry-after"] == "5"
        assert other.result().status == 503 and other.result().json["type"] == "error"
        text = streamed.result().data.decode()  # its status was sent before
        assert '"content":"H' in text and '"code":"engine_unavailable"' in text
        assert text.endswith("data: [DONE]\n\n")
        until(lambda: running.chat().status == 200)


PARENT = """
import sys, time
from pathlib import Path
from tunewright_engine_remote.child import Child
child = Child("child", Path(sys.argv[1], "log"))
child.start([sys.executable, "-c", sys.argv[2]], {})
print(child._group, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True) or sys.exit(0))
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def test_it_ends_with_its_parent_that_is_killed(tmp_path: Path) -> None:
    """With all its processes, and being asked first."""
    command = [sys.executable, "-c", PARENT, str(tmp_path), STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        group = int(parent.stdout.readline())
        until(lambda: (tmp_path / "log").read_text())
        grandchild = int((tmp_path / "log").read_text())
        assert is_running(group) and is_running(grandchild)
        parent.kill()
    until(lambda: not is_running(group) and not is_running(grandchild))
    assert (tmp_path / "log").read_text().endswith("asked\n")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be started: No such file or directory: /nowhere"):
        Child("x", tmp_path / "log").start(["/nowhere"], {})


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"environment": "/nowhere"}, RunError, "no environment with vLLM in /nowhere"),
        ({"arguments": ["--port", "1"]}, RecipeError, "--port is set by Tunewright"),
        ({"arguments": ["--trust_remote_code"]}, RecipeError, "on Tunewright's command line only"),
    ],
)
def test_options_that_are_refused(
    options: dict[str, Any], error: type[Exception], says: str, site: Any
) -> None:
    with pytest.raises(error) as caught:
        opened("vllm", site.run, EngineRequest(), **site.options | options)
    assert says in str(caught.value)


def test_requests_of_engines_that_are_refused(site: Any) -> None:
    for asked, says in (
        (EngineRequest(head="score"), "gives no scores"),
        (EngineRequest(cache_tokens=5), "sizes its cache itself"),
    ):
        with pytest.raises(RunError, match=says):
            opened("vllm", site.run, asked, **site.options)
    tiny = run_of(site.folder, model="tiny")
    with pytest.raises(RunError, match="a tiny twin has no checkpoint"):
        opened("vllm", tiny, EngineRequest(), **site.options)
