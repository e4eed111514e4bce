"""The example recipe of embed, made short: its vectors are the same in serving and in
sentence-transformers."""

from pathlib import Path

import torch
import typer
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from tunewright import check
from tunewright.inference import EngineRequest
from tunewright.run import open_run, train
from tunewright_export import command

EXAMPLE = Path(__file__).parents[2] / "docs/examples/embed.yaml"
QUERY = "Where does the wren nest?"
DOCUMENT = "In ivy, walls and banks."


def test_serving_and_sentence_transformers_pool_as_it_was_trained(tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["loggers=[]", "training.max_steps=2", "training.precision=fp32", f"output={run}"]
    for pooling in ("mean", "lasttoken"):
        train(check.resolve(EXAMPLE, [*more, f"stage.pooling={pooling}"]), overwrite=True)
        to = tmp_path / pooling
        app = typer.Typer()
        app.command()(command)
        asked = [str(run), "--to", "sentence_transformers", "--output", str(to)]
        said = CliRunner().invoke(app, asked, catch_exceptions=False)
        assert "embeddings of 64 numbers differ by" in said.output
        model = SentenceTransformer(str(to), device="cpu")
        theirs = [
            model.encode_query(QUERY, convert_to_tensor=True),
            model.encode_document(DOCUMENT, convert_to_tensor=True),
        ]
        opened = open_run(run)
        engine = opened.named("engine", "hf").call(
            "open_engine", run=opened, request=EngineRequest()
        )
        try:
            ours = torch.tensor(engine.embed([f"query: {QUERY}", DOCUMENT]).values)
            plain = torch.tensor(engine.embed([QUERY]).values)
        finally:
            engine.close()
        assert torch.allclose(ours, torch.stack(theirs).float(), atol=1e-5)
        assert not torch.allclose(plain[0], ours[0], atol=1e-2)  # the prompt counts
        assert opened.embedding.pooling == pooling
