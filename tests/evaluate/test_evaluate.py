"""`tunewright evaluate`: its results, what an interruption leaves, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from predict.trained import ROWS, call, chat, read, shared_run, train, turn, write
from tunewright import RecipeError, RunError
from tunewright.errors import Stopped
from tunewright.run import open_run
from tunewright.types import RewardRequest
from tunewright_engine_hf.opened import OpenedEngine
from tunewright_evaluate import command
from tunewright_evaluators import generation
from tunewright_rewards import RewardModel


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned its rows."""
    training = {"max_steps": 60, "learning_rate": 0.01, "precision": "fp32", "eval_steps": 60}
    return train(tmp_path_factory.mktemp("run"), training=training)


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned nothing."""
    return shared_run(tmp_path_factory)


def evaluate(folder: Path, *arguments: Any, output: Path | None = None) -> dict[str, Any]:
    """results.json of an evaluation."""
    where = ["--output", output] if output else []
    call(command, folder, "--with", *arguments, *where)
    place = output or folder / "evaluations" / arguments[0]
    found: dict[str, Any] = json.loads((place / "results.json").read_text("utf-8"))
    return found


def test_perplexity_is_the_loss_of_training(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, "perplexity", output=tmp_path / "out")["metrics"]
    (trained,) = [row["loss"] for row in read(run / "metrics.jsonl") if "eval" in row]
    assert found["loss"] == pytest.approx(trained, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(trained), rel=1e-5)
    data = write(tmp_path / "rows.jsonl", ROWS)
    batches = [
        evaluate(run, "perplexity", f"data={data}", f"batch_tokens={count}", output=tmp_path / name)
        for name, count in (("one", 1), ("all", 4096))
    ]
    assert batches[0]["metrics"]["loss"] == pytest.approx(batches[1]["metrics"]["loss"], rel=1e-5)
    assert batches[0]["rows"] == 4


def test_generation(run: Path, early: Path, tmp_path: Path) -> None:
    data = f"data={write(tmp_path / 'rows.jsonl', ROWS)}"
    options = (data, "max_new_tokens=40", "temperature=0")
    found = evaluate(run, "generation", *options)
    assert found["metrics"]["exact_match"] == 100
    assert found["metrics"]["tool_calls"] == 100
    assert found["metrics"]["bleu"] == pytest.approx(100)
    assert (found["rows"], found["errors"]) == (4, 0)
    place = run / "evaluations/generation"
    assert [row["row"] for row in read(place / "scores.jsonl")] == [1, 2, 3, 4]
    assert read(place / "predictions.jsonl")[1]["prediction"]["content"] == "Hello, Ben!"
    assert (place / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "| exact_match | 100 ± 0 |" in (place / "table.md").read_text("utf-8")
    both = call(
        command, run, early, "--with", "generation", *options, "--output", tmp_path / "both"
    )
    names = [path.name for path in sorted((tmp_path / "both").iterdir())]
    assert names == sorted([f"{early.parent.name}-run", f"{run.parent.name}-run"])
    exact = next(line.split() for line in both.output.splitlines() if "exact_match" in line)
    assert exact == ["exact_match", "100", "±", "0", "0", "±", "0"]


def test_complete_results_are_shown_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS[:2])
    options = ("generation", f"data={data}", "max_new_tokens=4", "metrics=[f1]")
    first = evaluate(run, *options, output=tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(OpenedEngine, "submit", None)  # nothing is generated
        assert evaluate(run, *options, output=tmp_path / "out") == first
        with pytest.raises(RecipeError, match="begun with max_new_tokens 4, and this is 5"):
            evaluate(run, *options, "max_new_tokens=5", output=tmp_path / "out")
        write(data, ROWS[1:3])
        with pytest.raises(RecipeError, match="examples is not what it was"):
            evaluate(run, *options, output=tmp_path / "out")
    call(command, run, "--with", *options, "--output", tmp_path / "out", "--overwrite")
    with pytest.raises(RecipeError, match="is not empty, and holds no evaluation"):
        evaluate(run, *options, output=tmp_path)
    assert data.exists()


def test_goes_on_after_an_interruption(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS)
    options = ("generation", f"data={data}", "max_new_tokens=4")
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(generation, "row_scores", stop)
        with pytest.raises(Stopped, match="the same command goes on"):
            evaluate(run, *options, output=tmp_path / "out")
    assert not (tmp_path / "out/results.json").exists()
    monkeypatch.setattr(OpenedEngine, "submit", None)  # its answers are there
    found = evaluate(run, *options, output=tmp_path / "out")
    assert found["rows"] == 4


def test_rewards(run: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Say hello to Ann.", "answer": "Hello, Ann!"}]
    rows += [{"prompt": "Say hello to Ben.", "answer": "Goodbye!"}]
    data = f"data={write(tmp_path / 'rows.jsonl', rows)}"
    options = ("reward", data, "max_new_tokens=20", "temperature=0")
    found = evaluate(run, *options, "reward=exact_match", output=tmp_path / "plugin")
    assert found["metrics"] == {"reward": 0.5, "lowest": 0, "highest": 1}
    assert [row["reward"] for row in read(tmp_path / "plugin/rewards.jsonl")] == [1, 0]
    (tmp_path / "mine.py").write_text(
        "def mine(completions, prompts, answer):\n"
        "    assert all('<|im_start|>user' in each for each in prompts)\n"
        "    return [float(len(each)) for each in answer]\n"
    )
    labelled = f"data={write(tmp_path / 'labels.jsonl', ROWS[:2])}"
    own = f"reward={tmp_path / 'mine.py'}:mine"
    found = evaluate(run, "reward", labelled, "max_new_tokens=4", own, output=tmp_path / "own")
    assert found["metrics"]["reward"] == len("Hello, Ann!")


def test_a_reward_model(run: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": f"Hi {n}", "chosen": "Good!", "rejected": "Bad."} for n in range(4)]
    data = [{"path": str(write(tmp_path / "pairs.jsonl", pairs))}]
    judge = train(tmp_path, data=data, eval_data={}, stages=["reward"])
    options = ("max_new_tokens=20", "temperature=0", "data=greetings", f"reward={judge}")
    evaluate(run, "reward", *options, output=tmp_path / "out")
    given = [row["reward"] for row in read(tmp_path / "out/rewards.jsonl")]
    prompts = [
        f"<|im_start|>user\nSay hello to {name}.<|im_end|>\n<|im_start|>assistant\n"
        for name in ("Ann", "Ben")
    ]
    request = RewardRequest(["Hello, Ann!", "Hello, Ben!"], {"prompts": prompts})
    model = RewardModel(RewardModel.Options(path=str(judge)))
    assert given == pytest.approx(model.score(open_run(run), request))
    assert given[0] != given[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gneration",), "no installed plugin gives the evaluator 'gneration'"),
        (("generation", "metrics=[blue]"), "metrics"),
        (("generation", "limt=3"), "did you mean 'limit'"),
        (("generation", "data=nowhere.jsonl"), "there is no file"),
        (("pairwise",), "compares runs, and one is named"),
        (("generation", "--name", "../x"), "expected letters, digits"),
        (("reward", "reward=no_such"), "no installed plugin gives the reward 'no_such'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes(early: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        evaluate(early, *arguments, output=tmp_path / "out")
    assert message in str(raised.value)


def test_rows_that_fail_are_counted(early: Path, tmp_path: Path) -> None:
    bad = {"messages": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")]}
    data = write(tmp_path / "rows.jsonl", [chat("Hi", "Oh"), bad])
    with pytest.raises(RunError, match="1 example could not be evaluated"):
        evaluate(early, "generation", f"data={data}", "max_new_tokens=4", output=tmp_path / "out")
    found = json.loads((tmp_path / "out/results.json").read_text("utf-8"))
    assert (found["rows"], found["errors"]) == (1, 1)
