"""Predictions: their order, what they hold, what a kill leaves, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from predict.trained import ROWS, TOOL, call, chat, read, shared_run, turn, write
from tunewright import RecipeError, RunError
from tunewright.errors import Stopped
from tunewright.inference import GenerateRequest, answers
from tunewright.run import open_run
from tunewright.types import Conversation, Message
from tunewright_engine_hf.opened import OpenedEngine
from tunewright_hf.predictions import predict as predicting
from tunewright_predict import command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_run(tmp_path_factory)


def predict(run: Path, output: Path, data: Any, *more: Any) -> list[dict[str, Any]]:
    call(command, run, "--data", data, "--output", output, "--max-new-tokens", 6, *more)
    return read(output)


def test_rows_are_in_order_and_hold_labels(run: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS * 6)
    rows = predict(run, tmp_path / "out.jsonl", data, "--slots", 3)
    assert [row["row"] for row in rows] == list(range(1, 25))
    assert [row["label"]["content"] for row in rows[:2]] == ["Hello, Ann!", "Hello, Ben!"]
    assert rows[2]["tools"] == [TOOL]
    assert rows[2]["label"]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert rows[3]["prompt"] == [turn("user", "问候小明。")]
    assert len({row["text"] for row in rows[::4]}) == 1  # the same prompt, the same answer
    assert [path.name for path in tmp_path.iterdir() if path.name != "rows.jsonl"] == ["out.jsonl"]


def test_predictions_are_the_engines_answers(run: Path, tmp_path: Path) -> None:
    rows = predict(run, tmp_path / "out.jsonl", "greetings")
    from tunewright.inference import EngineRequest

    opened = open_run(run)
    with opened.call("engine", "open_engine", EngineRequest()) as engine:
        for row in rows:
            asked = Conversation([Message("user", row["prompt"][0]["content"])])
            request = GenerateRequest(asked, max_new_tokens=6)
            assert row["text"] == "".join(piece.text for piece in answers(engine, request))
    assert len(rows) == 2


def test_a_call_is_parsed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'Action: weather\nAction Input: {"city": "Rome"}'
    own = predicting._Answer.listen

    def listen(answer: Any, piece: Any) -> None:
        piece.text = said if piece.finish_reason else ""
        own(answer, piece)

    monkeypatch.setattr(predicting._Answer, "listen", listen)
    data = write(tmp_path / "rows.jsonl", [ROWS[2]])
    (row,) = predict(run, tmp_path / "out.jsonl", data)
    (found,) = row["prediction"]["tool_calls"]
    assert found["function"] == {"name": "weather", "arguments": {"city": "Rome"}}


def test_goes_on_after_a_kill(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS * 5)
    sampled = ("--temperature", 0.8, "--seed", 7, "--slots", 2)
    whole = predict(run, tmp_path / "whole.jsonl", data, *sampled)
    submitted = []
    own = OpenedEngine.submit

    def submit(engine: Any, request: Any, listener: Any) -> Any:
        if len(submitted) == 9:
            raise KeyboardInterrupt
        submitted.append(request)
        return own(engine, request, listener)

    part = tmp_path / "out.jsonl.part"
    with monkeypatch.context() as patch:
        patch.setattr(OpenedEngine, "submit", submit)
        with pytest.raises(Stopped, match=r"stopped after [1-9] of 20 rows"):
            predict(run, tmp_path / "out.jsonl", data, *sampled)
    there = part.read_bytes().count(b"\n") - 1  # texts may hold what str.splitlines splits at
    assert 0 < there < 10
    with part.open("ab") as file:
        file.write('{"row": 19, "text": "tö'.encode()[:-1])  # torn within a character
    for option, field in (
        (("--temperature", 0.9, "--seed", 7), "temperature 0.8, and this is 0.9"),
        (("--temperature", 0.8, "--seed", 8), "seed 7, and this is 8"),
        ((*sampled, "--limit", 3), "data is not what it was"),
    ):
        with pytest.raises(RecipeError, match=field):
            predict(run, tmp_path / "out.jsonl", data, *option)
    assert not (tmp_path / "out.jsonl").exists()
    submitted.clear()
    monkeypatch.setattr(
        OpenedEngine, "submit", lambda *each: (submitted.append(each), own(*each))[1]
    )
    assert predict(run, tmp_path / "out.jsonl", data, *sampled) == whole
    assert len(submitted) == 20 - there
    assert not part.exists()


def test_an_engine_that_is_lost_leaves_its_rows_open(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = predicting._Answer.listen

    def listen(answer: Any, piece: Any) -> None:
        if piece.finish_reason and answer.example.number > 1:
            piece.finish_reason, piece.error, piece.unavailable = "error", "broke off", True
        own(answer, piece)

    data = write(tmp_path / "rows.jsonl", ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(predicting._Answer, "listen", listen)
        with pytest.raises(RunError, match=r"the engine was lost: broke off .*command goes on"):
            predict(run, tmp_path / "out.jsonl", data, "--slots", 1)
    rows = predict(run, tmp_path / "out.jsonl", data)
    assert len(rows) == len(ROWS) and not any("error" in row for row in rows)


def test_another_run_does_not_go_on(run: Path, tmp_path: Path) -> None:
    part = tmp_path / "out.jsonl.part"
    data = write(tmp_path / "rows.jsonl", ROWS)
    settings = {"run": "0" * 64}
    part.write_text(json.dumps({"settings": settings}) + "\n", "utf-8")
    with pytest.raises(RecipeError, match="run is not what it was"):
        predict(run, tmp_path / "out.jsonl", data)
    assert predict(run, tmp_path / "out.jsonl", data, "--overwrite")


def test_a_bad_row_has_its_error(run: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [ROWS[0], {"messages": [turn("user", "?")] * 2}])
    file.write_text(
        file.read_text("utf-8")
        + "{\n"
        + json.dumps({"messages": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")]})
        + "\n"
        + json.dumps(ROWS[1])
        + "\n",
        "utf-8",
    )
    with pytest.raises(RunError, match="3 rows of 5 could not be answered"):
        predict(run, tmp_path / "out.jsonl", file)
    rows = read(tmp_path / "out.jsonl")
    assert [("error" in row) for row in rows] == [False, True, True, True, False]
    assert "rows.jsonl:4: message 2 is from user" in rows[3]["error"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "Hi", "answer": "42"}, None),
        ({"instruction": "Hi", "output": "Oh"}, "Oh"),
        ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, "Yes"),
    ],
    ids=["prompts", "alpaca", "preference"],
)
def test_formats(run: Path, tmp_path: Path, row: dict[str, Any], label: str | None) -> None:
    (found,) = predict(run, tmp_path / "out.jsonl", write(tmp_path / "rows.jsonl", [row]))
    assert found["prompt"] == [turn("user", "Hi")]
    assert found.get("label", {}).get("content") == label
    assert found.get("columns") == ({"answer": "42"} if "answer" in row else None)


def test_a_source_as_recipes_write_it(run: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"turns": each["messages"]} for each in ROWS])
    entry = f"{{path: {data}, format: openai, columns: {{messages: turns}}, limit: 2}}"
    rows = predict(run, tmp_path / "out.jsonl", entry)
    assert [row["label"]["content"] for row in rows] == ["Hello, Ann!", "Hello, Ben!"]


def test_media_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    row = chat("<image>Hi", "Oh", images=["a.png"])
    data = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(RecipeError, match="the data has image, and this engine takes none"):
        predict(run, tmp_path / "out.jsonl", data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.jsonl", r"data.* there is no file .*nowhere.jsonl.*greetings, data"),
        ("{path: a", "is no mapping in YAML"),
        ("{path: a, fromat: x}", "unknown key .did you mean 'format'"),
    ],
)
def test_mistakes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as raised:
        predict(run, tmp_path / "out.jsonl", data)
    assert re.search(message, str(raised.value))


def test_no_file_is_replaced(run: Path, tmp_path: Path) -> None:
    there = write(tmp_path / "out.jsonl", [{"mine": 1}])
    with pytest.raises(RecipeError, match="exists already"):
        predict(run, there, "greetings")
    assert read(there) == [{"mine": 1}]
