"""Mistakes of every kind, through the real command line: one clear line, the right exit code,
nothing lost."""

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright import cli

RECIPE = """\
model: tiny
family: {name: qwen, tiny_hidden_size: 16, tiny_layers: 1}
template: chatml
data:
  - path: good.jsonl
stage: sft
training: {max_steps: 2, per_device_train_batch_size: 2}
loggers: [jsonl]
output: out
"""
GOOD = json.dumps(
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
)
TWICE = json.dumps(
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """run(change, to, …): train (or another verb) with a changed recipe; gives the exit code and
    standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.jsonl").write_text(f"{GOOD}\n" * 4)

    def _run(
        *changes: str, arguments: tuple[str, ...] = (), command: tuple[str, ...] = ("train",)
    ) -> tuple[int, str]:
        text = RECIPE
        for before, after in zip(changes[::2], changes[1::2], strict=True):
            assert before in text
            text = text.replace(before, after)
        (tmp_path / "r.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["tunewright", *command, "r.yaml", *arguments])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, capfd.readouterr().err

    return _run


def one_line(error: str) -> str:
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0].removeprefix("error: ")


def test_a_good_recipe_runs(run):
    assert run()[0] == 0
    assert Path("out/model/model.safetensors").is_file()


BAD = {  # name: (what is changed, exit code, what is said)
    "unknown key": (
        ("max_steps: 2", "maxsteps: 2"),
        2,
        "r.yaml:7: training.maxsteps: unknown key (did you mean 'max_steps'?)",
    ),
    "wrong type": (
        ("max_steps: 2", "max_steps: two"),
        2,
        "r.yaml:7: training.max_steps: found 'two', expected a valid integer",
    ),
    "unknown template": (
        ("chatml", "chatnl"),
        2,
        (
            "r.yaml:3: template: no installed plugin gives the template 'chatnl' (did "
            "you mean 'chatml'?)"
        ),
    ),
    "missing file": (("good.jsonl", "god.jsonl"), 2, "there is no file"),
    "unfit template": (
        ("chatml", "llama3"),
        2,
        "the tokenizer has no token for <|start_header_id|>",
    ),
    "missing model": (("model: tiny", "model: ./nothing"), 1, "./nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe(run, name):
    changes, code, said = BAD[name]
    found, error = run(*changes)
    assert said in one_line(error)
    assert found == code
    assert not Path("out/model").exists()


def test_a_check_looks_for_data_and_family_and_loads_nothing(run, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text('{"model_type": "qwen4"}')
    for changes, said in (
        (("good.jsonl", "god.jsonl"), "r.yaml:5: data.0: there is no file"),
        (("good.jsonl", "good.docx"), "r.yaml:5: data.0: "),
        (
            (
                "model: tiny",
                "model: folder",
                "family: {name: qwen, tiny_hidden_size: 16, tiny_layers: 1}\n",
                "",
            ),
            "'qwen4'",
        ),
    ):
        code, error = run(*changes, command=("recipe", "check"))
        assert code == 2 and said in one_line(error)
    assert run(command=("recipe", "check")) == (0, "")
    prepared = (
        "model: tiny",
        "model: tiny\ndataset: {name: chat, prepared: elsewhere}",
        "good.jsonl",
        "gone.jsonl",
    )
    assert run(*prepared, command=("recipe", "check")) == (0, "")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f"{GOOD}\n{{broken\n", "bad.jsonl:2: is not valid JSON"),
        (f"{GOOD}\n{TWICE}\n", "bad.jsonl:2"),
        ("", "holds no record"),
        (f"{GOOD}\n" + '{"messages": []}\n', "bad.jsonl:2"),
        ('{"question": 1}\n', "bad.jsonl:1: found an object with question"),
    ],
    ids=["broken line", "role order", "empty", "no messages", "no format"],
)
def test_bad_rows(run, rows, said):
    Path("bad.jsonl").write_text(rows)
    code, error = run("good.jsonl", "bad.jsonl")
    assert said in one_line(error)
    assert code in (1, 2)


def test_a_checkpoint_of_pickles_is_refused_unopened(run, tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    run()
    import pickle  # noqa: TID251 - the attack itself

    model = tmp_path / "out" / "model"
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    code, error = run("model: tiny", "model: out/model", "output: out", "output: out2")
    assert "pickle weights are not loaded" in one_line(error)
    assert code == 1
    assert not (tmp_path / "opened").exists()


def test_a_full_disk_loses_nothing(run, monkeypatch):
    code, _ = run("max_steps: 2", "max_steps: 4, save_steps: 2", arguments=("--overwrite",))
    assert code == 0
    kept = sorted(path.name for path in Path("out/checkpoints").iterdir())
    real = os.replace

    def full(source, target):
        if "step-" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "rename", full)
    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(os, "rename", full)
    code, error = run("max_steps: 2", "max_steps: 4, save_steps: 2", "output: out", "output: out2")
    assert "No space left on device" in one_line(error)
    assert code == 1
    assert sorted(path.name for path in Path("out/checkpoints").iterdir()) == kept
    assert not list(Path("out2/checkpoints").glob("step-*"))
    assert json.loads(Path("out2/run.json").read_text())["status"] == "failed"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM for one's own process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(run, number):
    def stop_once_it_trains() -> None:
        while not Path("out/metrics.jsonl").exists() and not done.wait(0.01):
            pass
        os.kill(os.getpid(), number)

    done = threading.Event()
    thread = threading.Thread(target=stop_once_it_trains)
    thread.start()
    code, error = run("max_steps: 2", "max_steps: 5000, logging_steps: 1")
    done.set()
    thread.join()
    assert code == 130
    assert "go on with: tunewright train out/recipe.yaml --resume" in one_line(error)
    (checkpoint,) = Path("out/checkpoints").glob("step-*")
    assert (checkpoint / "manifest.json").is_file()
    assert not list(Path("out").rglob("*.bin"))
