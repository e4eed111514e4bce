"""A training without a recipe: tiny models, rows of random tokens, and a run that only collects
events."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from tunewright.events import Logged
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, StageResult, TrainRequest
from tunewright_adamw import AdamW
from tunewright_conformance.doubles import FakeRun
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


def a_run(folder: Path, **facts: Any) -> FakeRun:
    """A run with AdamW, a cosine and no template. facts: fields of FakeRun."""
    run = FakeRun(folder, **facts)
    # eps: Adam would blow up the rounding of gradients near 0, which equality tests are not about
    optimizer = AdamW(AdamW.Options(eps=1e-5))
    scheduler = run.named("scheduler", "cosine").plugin
    run.plugins = {"optimizer": optimizer, "scheduler": scheduler, "template": None, **run.plugins}
    return run


def logs_of(run: FakeRun) -> list[dict[str, float]]:
    """What does not depend on the clock or the machine, of each logging step."""
    of_the_machine = ("tokens_per_second", "memory")
    return [
        {"step": log.step}
        | {name: each for name, each in log.metrics.items() if name not in of_the_machine}
        for log in run.events_of(Logged)
    ]


def use_scheduler(run: FakeRun, training: Training) -> None:
    """Give the run the scheduler that the training names."""
    name = training.lr_scheduler_type or "cosine"
    run.plugins["scheduler"] = run.named("scheduler", name).plugin


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


def stop_after(step: int) -> Callable[[FakeRun], bool]:
    """A stop that is asked for in this optimizer step, and holds from then on, as after a signal.
    The loop asks once after each step, evaluations and rollouts between batches."""
    steps = 0

    def stop(run: FakeRun) -> bool:
        nonlocal steps
        steps += sys._getframe(2).f_code.co_name == "_log_evaluate_save"
        return steps >= step

    return stop


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
    sharding: Any = None,
    **training: Any,
) -> tuple[FakeRun, StageResult]:
    """`train` with settings that are quick; `training` are fields of recipe.Training. generate:
    tokens of the answers that evaluation writes."""
    run = run or a_run(folder)
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
        sharding=sharding,
    )
    use_scheduler(run, request.training)
    extra_eval_metrics = Generation(request, (), generate) if generate else None
    return run, train(
        run, request, stage="sft", packing=packing, extra_eval_metrics=extra_eval_metrics
    )
