"""Foreign templates: the worker's limits."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tunewright_hf.templates.render_worker import RenderWorker, WorkerError


@pytest.fixture(scope="module")
def worker() -> Iterator[RenderWorker]:
    made = RenderWorker(timeout=2.0)
    yield made
    made.close()


def test_it_renders_what_the_environment_renders(worker: RenderWorker) -> None:
    assert (
        worker.render("{{ x | tojson }}{{ y }}", {"x": {"a": "<é>"}, "y": "\n\ud7ff🙂\ue000"})
        == '{"a": "<é>"}\n\ud7ff🙂\ue000'
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        (
            "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}",
            "took longer than 2 s",
        ),
        ("{{ 10**(10**8) }}", "took longer than 2 s"),
        (
            "{% for i in range(10**4) %}{{ 'a' * 10**5 }}{% endfor %}",
            "writes more than 10,000,000 characters",
        ),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "what the sandbox forbids"),
        ("{{ (''|attr('__class__')).mro() }}", "what the sandbox forbids"),
        ("{% set f = '{0.__class__.__mro__}'.format %}{{ f(1) }}", "what the sandbox forbids"),
        ("{% include '/etc/passwd' %}", "may not load other templates"),
        ("{% import 'os' as os %}", "may not load other templates"),
        ("{% for %}", "cannot be read, line 1"),
        ("{{ raise_exception('no') }}", "refuses this conversation: no"),
    ],
)
def test_attacks_end_in_one_line(worker: RenderWorker, source: str, problem: str) -> None:
    with pytest.raises(WorkerError, match=problem) as error:
        worker.render(source, {})
    assert "\n" not in str(error.value)
    assert worker.render("alive {{ x }}", {"x": 1}) == "alive 1"


@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux only")
@pytest.mark.parametrize("source", ["{{ 'a' * n }}", "{% set x = 'a' * 10**9 %}{{ x }}"])
def test_a_string_of_a_gigabyte(worker: RenderWorker, source: str) -> None:
    with pytest.raises(WorkerError, match="more memory than it may have"):
        worker.render(source, {"n": 10**9})


def test_who_is_to_blame(worker: RenderWorker) -> None:
    with pytest.raises(WorkerError) as error:
        worker.render("{{ raise_exception('no') }}", {})
    assert error.value.blamed == "row"
    with pytest.raises(WorkerError) as error:
        worker.render("{% for %}", {})
    assert error.value.blamed == "template"


def test_the_worker_is_kept_and_comes_back_after_it_was_killed() -> None:
    made = RenderWorker()
    made.render("x", {})
    first = made._process
    assert first is not None
    made.render("x", {})
    assert made._process is first
    first.kill()
    first.wait()
    assert made.render("y", {}) == "y"
    assert made._process is not first
    made.close()


def test_threads_take_turns(worker: RenderWorker) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = worker.render("{{ n }}" * 50, {"n": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) * 50 for number in range(8)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_starts_a_worker_of_its_own() -> None:
    code = """
import os
from tunewright_hf.templates.render_worker import RenderWorker
worker = RenderWorker()
worker.render("x", {})
mine = worker._process.pid
child = os.fork()
if not child:
    text = worker.render("{{ 1 + 1 }}", {})
    other = worker._process.pid != mine
    worker.close()
    os._exit(0 if text == "2" and other else 1)
_, status = os.waitpid(child, 0)
assert worker.render("still {{ 3 }}", {}) == "still 3" and worker._process.pid == mine
worker.close()
print(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_the_worker_gets_no_secrets_and_imports_neither_ours_nor_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heavy = ["torch", "transformers", "tunewright"]
    code = (
        f"import sys, tunewright_hf.templates.render_worker; print([m for m in {heavy} if "
        "m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    seen: dict[str, str] = {}
    real = subprocess.Popen

    def spy(*arguments: object, **more: object) -> object:
        seen.update(more["env"])  # type: ignore[call-overload]
        return real(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "Popen", spy)
    made = RenderWorker()
    made.render("x", {})
    made.close()
    assert "secret" not in json.dumps(seen)
