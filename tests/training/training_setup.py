"""A training without a recipe: tiny models, rows of random tokens, and a run that only collects
events."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from tunewright import registry
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, StageResult, TrainRequest
from tunewright_adamw import AdamW
from tunewright_hf.training.causal_lm import train
from tunewright_sft.generation import Generation

VOCAB = 128
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass
class FakeRun:
    folder: Path
    rank: int = 0
    world_size: int = 1
    events: list[Any] = field(default_factory=list)
    scheduler: str = "cosine"
    recipe: Any = field(default_factory=lambda: SimpleNamespace(stages=[None]))

    @property
    def data_rank(self) -> int:
        return self.rank

    @property
    def data_world_size(self) -> int:
        return self.world_size

    def plugin(self, kind: str) -> Any:
        # eps: Adam would blow up the rounding of gradients near 0, which equality tests are not
        # about
        return AdamW(AdamW.Options(eps=1e-5)) if kind == "optimizer" else None

    def named(self, kind: str, name: str, **options: Any) -> registry.PluginCaller:
        entry = registry.find(kind, name)
        plugin = registry.load(entry)
        return registry.PluginCaller(entry, plugin(plugin.Options(**options), name))

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def check_stop(self) -> None:
        """Nobody asks it to stop."""

    def call(self, kind: str, hook: str, request: Any) -> Any:
        if kind == "scheduler":
            return self.named(kind, self.scheduler).call(hook, run=self, request=request)
        assert (kind, hook) == ("optimizer", "build_optimizer")
        return self.plugin("optimizer").build_optimizer(self, request)

    def logged(self) -> list[dict[str, float]]:
        """What does not depend on the clock or the machine, of each logging step."""
        logs = [event for event in self.events if type(event).__name__ == "Logged"]
        same = ("loss", "learning_rate", "grad_norm", "epoch", "tokens")
        return [{"step": log.step, **{name: log.metrics[name] for name in same}} for log in logs]


def tokenizer() -> PreTrainedTokenizerFast:
    words = {
        "<pad>": 0,
        "<s>": 1,
        "</s>": 2,
        **{f"w{number}": number for number in range(3, VOCAB)},
    }
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def model(config: Any = None, attention: str = "eager", dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    config = config or LlamaConfig(**SIZE, attention_dropout=dropout)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def qwen() -> Qwen3Config:
    return Qwen3Config(**SIZE, tie_word_embeddings=True)


def loaded(model: Any) -> LoadedModel:
    return LoadedModel(model=model, tokenizer=tokenizer())


def lora(model: Any, dropout: float = 0.2, task: str = "CAUSAL_LM") -> LoadedModel:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear", task_type=task)
    return LoadedModel(model=get_peft_model(model, config), tokenizer=tokenizer(), saves="adapter")


def rows(
    number: int = 24, longest: int = 20, seed: int = 0, weighted: bool = False
) -> datasets.Dataset:
    """Sequences in which each token is the one before plus 3: something that can be learned."""
    made = torch.Generator().manual_seed(seed)
    table = []
    for _ in range(number):
        length = int(torch.randint(3, longest + 1, (1,), generator=made))
        start = int(torch.randint(3, VOCAB, (1,), generator=made))
        ids = [3 + (start + 3 * place) % (VOCAB - 3) for place in range(length)]
        row = {"input_ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]}
        if weighted:
            row["loss_weights"] = [0.5] * length if start % 2 else None
        table.append(row)
    return datasets.Dataset.from_list(table)


def run_training(
    folder: Path,
    loaded: LoadedModel,
    data: datasets.Dataset | None = None,
    *,
    evals: dict[str, datasets.Dataset] | None = None,
    packing: bool = False,
    stop: Callable[[FakeRun], bool] = lambda run: False,
    checkpoint: Path | None = None,
    run: FakeRun | None = None,
    generate: int = 0,
    **training: Any,
) -> tuple[FakeRun, StageResult]:
    """`train` with settings that are quick; `training` are fields of recipe.Training. generate:
    tokens of the answers that evaluation writes."""
    run = run or FakeRun(folder)
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "max_steps": 6,
        "precision": "fp32",
    }
    request = TrainRequest(
        loaded,
        Data(train=data if data is not None else rows(), evals=evals or {}),
        Training(**{**settings, **training}),
        folder,
        checkpoint=checkpoint,
        stop_requested=lambda: stop(run),
    )
    run.scheduler = request.training.lr_scheduler_type or "cosine"
    extra_eval_metrics = Generation(request, (), generate) if generate else None
    return run, train(
        run, request, stage="sft", packing=packing, extra_eval_metrics=extra_eval_metrics
    )
