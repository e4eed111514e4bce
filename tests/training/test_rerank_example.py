"""The example recipe of rerank, made short: its scores are the same in serving, in
sentence-transformers and in an export."""

import json
from pathlib import Path

import pytest
import torch
import typer
from sentence_transformers import CrossEncoder
from typer.testing import CliRunner

from tunewright import RecipeError, check
from tunewright.inference import EngineRequest
from tunewright.run import open_run, train
from tunewright.types import Conversation, Message
from tunewright_export import command
from tunewright_hf.inference.opening import open_target
from tunewright_hf.losses.sequence_scores import scores_at_the_end
from tunewright_rewards.model import Judge

EXAMPLE = Path(__file__).parents[2] / "docs/examples/rerank.yaml"
PAIRS = [
    ("Where does the wren nest?", "In ivy, walls and banks, and often near {query} a stream."),
    ("Where does the wren nest?", "Swans swim."),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rerank") / "run"
    more = ["loggers=[]", "training.max_steps=3", "training.precision=fp32", f"output={folder}"]
    train(check.resolve(EXAMPLE, more))
    return folder


def exported(run: Path, to: str, folder: Path) -> str:
    app = typer.Typer()
    app.command()(command)
    asked = [str(run), "--to", to, "--output", str(folder)]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def served(target: str) -> list[float]:
    opened = open_target(target)
    engine = opened.named("engine", "hf").call(
        "open_engine", run=opened, request=EngineRequest(head="score")
    )
    try:
        asked = [
            Conversation([Message("user", query), Message("assistant", document)])
            for query, document in PAIRS
        ]
        found: list[float] = engine.score(asked).values
        return found
    finally:
        engine.close()


def by_hand(run: Path) -> list[float]:
    opened = open_run(run)
    loaded = opened.load_policy("score")
    texts = [f"Query: {query}\nDocument: {document}\nRelevance:" for query, document in PAIRS]
    found = []
    for text in texts:
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            found.append(float(scores_at_the_end(loaded.model, loaded.model, given)))
    return found


def test_serving_and_exports_score_as_was_trained(run: Path, tmp_path: Path) -> None:
    expected = pytest.approx(by_hand(run), abs=1e-5)
    assert served(str(run)) == expected
    said = exported(run, "sentence_transformers", tmp_path / "st")
    assert "4 scores differ by" in said
    theirs = CrossEncoder(str(tmp_path / "st"), device="cpu")
    assert theirs.predict(PAIRS).tolist() == expected
    assert "verified: logits differ by" in exported(run, "safetensors", tmp_path / "plain")
    assert served(str(tmp_path / "plain")) == expected
    assert json.loads((tmp_path / "plain/config.json").read_text())["pair_prompt"]


def test_formats_of_language_models_refuse_it(run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    asked = [str(run), "--to", "ollama", "--output", str(tmp_path / "it")]
    with pytest.raises(RecipeError, match="ollama writes language models, and this one has the he"):
        CliRunner().invoke(app, asked, catch_exceptions=False)


def test_a_reranker_is_no_judge_of_answers(run: Path) -> None:
    with pytest.raises(RecipeError, match="holds no reward model"):
        Judge(open_run(run), None, str(run))
