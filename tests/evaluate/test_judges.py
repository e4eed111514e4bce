"""Judges: against a stand-in that speaks the API, which also refuses, breaks off and talks wild."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from predict.trained import ROWS, call, read, shared_run, train, write
from tunewright import RecipeError, RunError
from tunewright_evaluate import command
from tunewright_evaluators import endpoint
from tunewright_evaluators.judge import parse_score
from tunewright_evaluators.pairwise import parse_verdict, verdict, wilson

Reply = Callable[[str, int], "str | int"]


@contextmanager
def judge(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a judge, and the requests that it got. reply: to a prompt, with the number of
    requests before it; an int is a status."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "token": self.headers["Authorization"]})
            given = reply(body["messages"][0]["content"], len(asked) - 1)
            self.send_response(given if isinstance(given, int) else 200)
            self.end_headers()
            if isinstance(given, str):
                choice = {"message": {"role": "assistant", "content": given}}
                self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that says something else."""
    training = {"max_steps": 1, "learning_rate": 1e-5, "precision": "fp32"}
    return train(tmp_path_factory.mktemp("other"), training=training)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.01)


def evaluate(runs: list[Path], name: str, output: Path, *more: Any) -> dict[str, Any]:
    options = ("max_new_tokens=4", "temperature=0", *more)
    call(command, *runs, "--with", name, *options, "--output", output)
    found: dict[str, Any] = json.loads((output / "results.json").read_text("utf-8"))
    return found


def test_scores(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret")
    data = write(tmp_path / "rows.jsonl", ROWS)

    def reply(prompt: str, before: int) -> str | int:
        if before == 0:
            return 429
        if before == 1:
            return 503
        return "Fine.\n**Score:** 8" if "Ann" in prompt else "Score: 4"

    with judge(reply) as (url, asked):
        given = (f"data={data}", f"url={url}", "model=big", "token_variable=JUDGE_TOKEN")
        found = evaluate([run], "judge", tmp_path / "out", *given)
    assert found["metrics"] == {"score": 5}  # 8, 4, 4, 4
    assert found["rows"] == 4
    assert len(asked) == 6
    assert {(one["path"], one["model"], one["token"]) for one in asked} == {
        ("/v1/chat/completions", "big", "Bearer s3cret")
    }
    assert "[Reference answer]\nHello, Ann!" in "".join(
        one["messages"][0]["content"] for one in asked
    )
    for path in (tmp_path / "out").iterdir():
        assert b"s3cret" not in path.read_bytes()


def test_goes_on_where_the_judge_was_lost(run: Path, tmp_path: Path) -> None:
    data = f"data={write(tmp_path / 'rows.jsonl', ROWS)}"
    options = (data, "workers=1", "retries=0")
    with (
        judge(lambda _, before: "Score: 7" if before < 2 else 500) as (url, _),
        pytest.raises(RunError, match="answers 500"),
    ):
        evaluate([run], "judge", tmp_path / "out", *options, f"url={url}")
    part = read(tmp_path / "out/judgements.jsonl.part")
    assert [row["score"] for row in part[1:]] == [7, 7]
    with judge(lambda *_: "Score: 9") as (url, asked):
        found = evaluate([run], "judge", tmp_path / "out", *options, f"url={url}")
    assert found["metrics"] == {"score": 8}
    assert len(asked) == 2


def test_replies_without_a_score_are_errors(run: Path, tmp_path: Path) -> None:
    data = f"data={write(tmp_path / 'rows.jsonl', ROWS)}"
    with judge(lambda _, before: "Score: 5" if before else "I will not. Score: 11") as (url, _):
        options = (data, f"url={url}", "workers=1")
        with pytest.raises(RunError, match="1 example could not be evaluated"):
            evaluate([run], "judge", tmp_path / "out", *options)
    rows = read(tmp_path / "out/judgements.jsonl")
    assert sum("error" in row for row in rows) == 1


def test_pairs_are_seen_in_both_orders(run: Path, other: Path, tmp_path: Path) -> None:
    data = f"data={write(tmp_path / 'rows.jsonl', ROWS)}"
    with judge(lambda *_: "A is first. Verdict: A") as (url, asked):
        found = evaluate([run, other], "pairwise", tmp_path / "place", data, f"url={url}")
    assert found["metrics"]["ties"] == 4  # it prefers a place, not an answer
    assert found["metrics"]["win_rate"] == 50
    assert len(asked) == 8
    first = {row["text"] for row in read(tmp_path / "place/first.jsonl")}
    second = {row["text"] for row in read(tmp_path / "place/second.jsonl")}
    assert first != second

    def by_text(prompt: str, _: int) -> str:
        answer = prompt.partition("[Answer A]\n")[2].partition("\n[End of answer A]")[0]
        return f"Verdict: {'A' if answer.strip() in {each.strip() for each in first} else 'B'}"

    with judge(by_text) as (url, _):
        found = evaluate([run, other], "pairwise", tmp_path / "text", data, f"url={url}")
    assert found["metrics"]["wins"] == 4
    assert found["metrics"]["win_rate_low"] == pytest.approx(51.01, abs=0.01)  # Wilson, 4 of 4


def test_pairs_by_a_reward(run: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def mine(completions, **_):\n    return [float(len(each)) for each in completions]\n"
    )
    data = f"data={write(tmp_path / 'rows.jsonl', ROWS)}"
    own = f"reward={tmp_path / 'mine.py'}:mine"
    found = evaluate([run, other], "pairwise", tmp_path / "out", data, own)["metrics"]
    lengths = [
        [len(row["text"].strip()) for row in read(tmp_path / f"out/{name}.jsonl")]
        for name in ("first", "second")
    ]
    pairs = list(zip(*lengths, strict=True))
    assert found["wins"] == sum(one > two for one, two in pairs)
    assert found["losses"] == sum(one < two for one, two in pairs)


def test_replies_are_parsed() -> None:
    assert parse_score("Score: 3. On reflection, score = **9**", 10) == 9
    assert parse_score("Score: 0", 10) is None
    assert parse_score("great", 10) is None
    assert parse_verdict("Verdict: A\nNo: **Verdict:** tie") == "TIE"
    assert parse_verdict("Verdict: Alice") is None
    table = {("A", "B"): "win", ("B", "A"): "loss", ("A", "A"): "tie", ("TIE", "B"): "tie"}
    assert {pair: verdict(*pair) for pair in table} == table
    assert verdict("A", None) is None


def test_wilson() -> None:
    low, high = wilson(0.5, 100)  # textbook: 0.4038 to 0.5962
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(1.0, 1)[1] == 1
    assert wilson(0.0, 1)[0] == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("token_variable=NO_SUCH_TOKEN", "NO_SUCH_TOKEN holds no token"),
        ("url=http://me:secret@127.0.0.1/v1", "give no password in it"),
        ("url=ftp://127.0.0.1/v1", "url"),
    ],
)
def test_mistakes(run: Path, tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        evaluate([run], "judge", tmp_path / "out", "data=greetings", option)
    assert message in str(raised.value)
    assert "secret@" not in str(raised.value)


def test_nobody_answers(run: Path, tmp_path: Path) -> None:
    options = ("data=greetings", "url=http://127.0.0.1:9/v1", "retries=1")
    with pytest.raises(RunError, match=r"127.0.0.1:9.* cannot be reached"):
        evaluate([run], "judge", tmp_path / "out", *options)
