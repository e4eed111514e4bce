"""Every installed stage with every way of tuning, and the page that says what of it works.

python tests/training/matrix.py     runs all of it, and writes docs/reference/stages.md
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tunewright import registry
from tunewright.check import resolve
from tunewright.run import Run, open_run, train
from tunewright.types import LoadedModel

PAGE = Path(__file__).parents[2] / "docs/reference/stages.md"
RAN = "✓"

# ---- what is combined ----------------------------------------------------------------------------

LORA = {"name": "lora", "rank": 2}
#: way of tuning → what a recipe says of it
WAYS: dict[str, dict[str, Any]] = {
    "full": {"adapter": {"name": "full"}},
    "full, pure bf16": {
        "adapter": {"name": "full"},
        "training": {"precision": "pure_bf16", "stochastic_rounding": True},
    },
    "freeze": {"adapter": {"name": "freeze", "trainable_layers": 1}},
    "lora": {"adapter": LORA},
    "QLoRA, 4 bits": {"adapter": LORA, "quantizer": {"name": "bitsandbytes", "bits": 4}},
    "QLoRA, 8 bits": {"adapter": LORA, "quantizer": {"name": "bitsandbytes", "bits": 8}},
}
REWARDED = {"rewards": [{"name": "length", "target": 7}], "max_new_tokens": 3}
#: options without which a stage does not begin, and those that keep it short
OPTIONS: dict[str, dict[str, Any]] = {
    # the teacher is what the model was at first: the likelihood is what moves it
    "distill": {"teacher": "tiny", "nll_weight": 1.0},
    "classify": {"labels": ["bird", "stone"]},
    "grpo": {**REWARDED, "num_generations": 4},
    "online_dpo": REWARDED,
    "ppo": {**REWARDED, "ppo_epochs": 1},
}
ASKED, GOOD, BAD = "What sings?", "A wren sings.", "A stone."
#: sort of rows → records of a source
RECORDS: dict[str, list[dict[str, Any]]] = {
    "text": [{"text": "A wren is a small brown bird. " * 3}] * 4,
    "messages": [
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": GOOD}]}
    ]
    * 4,
    "preference": [{"prompt": ASKED, "chosen": GOOD, "rejected": BAD}] * 4,
    "unpaired": [
        {"prompt": ASKED, "completion": text, "label": text == GOOD} for text in (GOOD, BAD) * 2
    ],
    "prompts": [{"prompt": ASKED}] * 4,
    "labelled": [{"text": GOOD, "label": "bird"}, {"text": BAD, "label": "stone"}] * 2,
    "ranked": [{"prompt": ASKED, "chosen": GOOD, "rejected": [BAD, "No."]}] * 4,
    "stepwise": [{"prompt": ASKED, "completions": [GOOD, BAD], "labels": [True, False]}] * 4,
    "retrieval": [{"query": f"{ASKED} {n}", "positive": GOOD, "negative": BAD} for n in range(4)],
}


def stages() -> dict[str, Any]:
    """Name → class of every stage of ours, by name."""
    return {
        name: registry.load(registry.find("stage", name))
        for name in sorted(registry.shipped_table()["known"]["stage"])
    }


def is_trained(way: str, head: str, name: str) -> bool:
    """Whether the way trains a parameter of the tiny twin, which has one layer, by its name. A head
    that is no language model's is new, and trained in any case."""
    if head != "causal_lm" and ".score." in f".{name}":
        return "original_module" not in name  # PEFT trains a copy
    whole = {"full": True, "full, pure bf16": True, "freeze": ".layers.0." in name}
    return whole.get(way, "lora_" in name)


# ---- one of them ---------------------------------------------------------------------------------


def run_cell(stage: str, way: str, folder: Path) -> None:
    """Two steps. Raises AssertionError if the loss is no number, other parameters move than
    should, or what is saved and loaded again is not what was trained; and what training itself
    raises."""
    plugin = stages()[stage]
    (folder / "rows.jsonl").write_text(
        "".join(f"{json.dumps(each)}\n" for each in RECORDS[plugin.rows]), "utf-8"
    )
    recipe = resolve(
        {
            "model": "tiny",
            "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
            **WAYS[way],
            "stage": {"name": stage, **OPTIONS.get(stage, {})},
            "data": [{"path": str(folder / "rows.jsonl")}],
            "training": {
                "max_steps": 2,
                "learning_rate": 0.05,
                "lr_scheduler_type": "constant",
                "per_device_train_batch_size": 2,
                "batching": "random",
                "max_length": 64,
                "precision": "fp32",
                **WAYS[way].get("training", {}),
            },
            "output": str(folder / "run"),
            "loggers": [],
        }
    )
    with first_load() as policy:
        result = train(recipe)
    assert math.isfinite(result.metrics["loss"])
    saves = "adapter" if WAYS[way]["adapter"]["name"] == "lora" else "model"
    assert (result.steps, result.saves) == (2, saves)
    loaded, before = policy[0]
    after = parameters(loaded)
    # no vector depends on the head; in pure bf16 it is rounded
    unused = {"lm_head.weight"} if plugin.rows == "retrieval" else set()
    expected = {name for name in before if is_trained(way, plugin.head, name)} - unused
    assert expected
    assert {
        name for name, each in loaded.model.named_parameters() if each.requires_grad
    } == expected
    moved = {name for name, each in after.items() if not torch.equal(each, before[name])}
    assert moved - unused == expected
    again = parameters(
        open_run(folder / "run").load(head=plugin.head, prior=result, trainable=False)
    )
    assert {name for name, each in after.items() if not torch.equal(each, again[name])} == set()


@contextmanager
def first_load() -> Iterator[list[tuple[LoadedModel, dict[str, torch.Tensor]]]]:
    """The policy, which a run loads first, and its parameters at that time."""
    own: Callable[..., LoadedModel] = Run.load
    found: list[tuple[LoadedModel, dict[str, torch.Tensor]]] = []

    def load(self: Run, **how: Any) -> LoadedModel:
        loaded = own(self, **how)
        if not found:
            found.append((loaded, parameters(loaded)))
        return loaded

    with mock.patch.object(Run, "load", load):
        yield found


def parameters(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in loaded.model.named_parameters()}


# ---- the page ------------------------------------------------------------------------------------

HEAD = """# Stages and tuning methods

<!-- Generated by tests/training/matrix.py from the runs it made. -->

Every stage with every tuning method, on a CPU. ✓: two steps were run on a tiny Llama, and

- the loss was finite,
- exactly the parameters that the method trains changed, including a reward model's new head,
- the saved result was loaded again, and equalled the trained model.

The tests repeat and compare all of this. The options of each stage are in [plugins.md](plugins.md).
"""


def page(ran: dict[str, dict[str, str]]) -> str:
    """The page. ran: stage → way → what came of it."""
    lines = [HEAD, row("stage", "rows", *WAYS), row(*["---"] * (len(WAYS) + 2))]
    lines += [
        row(f"`{stage}`", plugin.rows, *(ran[stage][way] for way in WAYS))
        for stage, plugin in stages().items()
    ]
    lines += ["\n## Recipe sections\n", row("method", "sections"), row("---", "---")]
    lines += [
        row(way, ", ".join(f"`{section(*each)}`" for each in sections.items()))
        for way, sections in WAYS.items()
    ]
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def section(kind: str, options: dict[str, Any]) -> str:
    return f"{kind}: {{{', '.join(f'{name}: {value}' for name, value in options.items())}}}"


def cells_of(text: str) -> dict[str, dict[str, str]]:
    """Cells of a page: stage → method → text."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {stage.strip("`"): dict(zip(WAYS, ran, strict=True)) for stage, _, *ran in rows}


def main() -> int:
    ran: dict[str, dict[str, str]] = {stage: {} for stage in stages()}
    for stage, ways in ran.items():
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    run_cell(stage, way, Path(folder))
                    ways[way] = RAN
                except Exception as error:  # whatever it is, the page says that it does not work
                    ways[way] = "–"
                    print(f"{stage}, {way}: {type(error).__name__}: {error}")
    PAGE.write_text(page(ran), "utf-8")
    return int(any(result != RAN for ways in ran.values() for result in ways.values()))


if __name__ == "__main__":
    sys.exit(main())
