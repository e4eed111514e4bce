"""Distillation from a quantized teacher: the loss is that of the quantized model's own logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.events import Event, Logged
from tunewright.run import train
from tunewright_distill.training import DistillTrainer

ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in (("Who sings?", "A wren."), ("Where?", "In the moss."), ("When?", "At dawn"))
]


def run(folder: Path, stage: dict[str, Any], **sections: Any) -> tuple[Any, list[dict[str, float]]]:
    """The result, and what each step logged."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), "utf-8")
    recipe = {
        "model": "tiny",
        "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 64, "tiny_layers": 1},
        "stage": stage,
        "data": [{"path": str(folder / "rows.jsonl")}],
        "loggers": [],
        "output": str(folder / "run"),
        "adapter": "full",
        **sections,
    }
    recipe["training"] = {
        "max_steps": 2,
        "logging_steps": 1,
        "precision": "fp32",
        "learning_rate": 0.02,
        **sections.get("training", {}),
    }
    logged: list[dict[str, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged):
            logged.append(event.metrics)

    return train(recipe, on_event=listen), logged


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a model whose layers have large weights, so that quantizing them shows."""
    folder = tmp_path_factory.mktemp("teacher") / "sft"
    path = run(folder, {"name": "sft"})[0].path
    tensors = load_file(path / "model.safetensors")
    save_file(
        {name: each * 20 if "_proj" in name else each for name, each in tensors.items()},
        path / "model.safetensors",
        {"format": "pt"},
    )
    return str(path)


def by_hand(trainer: Any, batch: Any) -> float:
    """Mean of KL(teacher ‖ student) over the trained tokens, from plain logits."""
    with torch.no_grad():
        theirs, ours = (
            model(**batch["inputs"]).logits[:, :-1].float().log_softmax(-1)
            for model in (trainer.teacher.model, trainer.model)
        )
    kl = (theirs.exp() * (theirs - ours)).sum(-1)
    return float(kl[batch["labels"][:, 1:] != -100].mean())


@pytest.mark.parametrize(
    ("quantizer", "dtype"),
    [
        ("bitsandbytes", torch.uint8),  # 4 bits
        ({"name": "bitsandbytes", "bits": 8}, torch.int8),
    ],
)
@pytest.mark.parametrize("whose", ["the teacher's", "the recipe's"])
def test_a_quantized_teacher(tmp_path, monkeypatch, teacher, quantizer, dtype, whose):
    seen: list[tuple[Any, float]] = []
    compute = DistillTrainer.compute_loss

    def watched(self: Any, forward: Any, batch: Any, scale: float) -> Any:
        seen.append((self, by_hand(self, batch)))
        return compute(self, forward, batch, scale)

    monkeypatch.setattr(DistillTrainer, "compute_loss", watched)
    stage, sections = {"name": "distill", "teacher": teacher}, {}
    if whose == "the teacher's":
        stage["teacher_quantizer"] = quantizer
    else:
        sections = {"quantizer": quantizer, "adapter": {"name": "lora", "rank": 4}}
    _, logged = run(tmp_path / "quantized", stage, **sections)
    trainer = seen[0][0]
    assert dtype in {each.dtype for each in trainer.teacher.model.parameters()}
    student = {each.dtype for each in trainer.model.parameters()}
    assert (dtype in student) == (whose == "the recipe's")
    assert [each["loss"] for each in logged] == pytest.approx([kl for _, kl in seen], rel=1e-4)
    _, plain = run(tmp_path / "plain", {"name": "distill", "teacher": teacher})
    assert logged[0]["loss"] != pytest.approx(plain[0]["loss"], rel=1e-3)
    assert logged[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.2)


def test_the_cached_tokens_of_a_quantized_teacher_are_its_own(tmp_path, teacher):
    """All tokens but one, so the losses are those of a teacher that stays."""
    stage = {"name": "distill", "teacher": teacher, "teacher_quantizer": "bitsandbytes"}
    _, stays = run(tmp_path / "stays", stage)
    vocabulary = json.loads((Path(teacher) / "config.json").read_text())["vocab_size"]
    _, cached = run(tmp_path / "cached", stage | {"cache_top_k": vocabulary - 1})
    losses = [[each["loss"] for each in logged] for logged in (stays, cached)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
