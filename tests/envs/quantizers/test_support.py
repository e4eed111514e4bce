"""What docs/reference/support.md says was run: LoRA learns on every row, and the cells of its
tables come out as they stand there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support_page import rows, runs

from envs.quantizers import quantizer_runs
from envs.quantizers.quantizer_setup import IDS, gradients, learn, run_of

RUN = [row for row in rows() if row["run"]]


@pytest.mark.parametrize("row", RUN, ids=lambda row: f"{row['bits']}-{row['quantizer']}")
def test_lora_learns(row: dict[str, Any], tmp_path: Path) -> None:
    quantizer = {"name": row["quantizer"], **row.get("options", {})}
    family = {"name": "gpt_oss", "device": "cpu"} if row["quantizer"] == "mxfp4" else None
    more: dict[str, Any] = {"family": family, "template": "gpt_oss"} if family else {}
    loaded = run_of(quantizer, **more).load()
    first = loss(loaded)
    learn(loaded, 5)
    assert loss(loaded) < 0.95 * first
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients(loaded).values())


def loss(loaded: Any) -> float:
    with torch.no_grad():
        return float(loaded.model.eval()(input_ids=IDS, labels=IDS).loss)


def cells() -> list[Any]:
    """Of each quantizer one stage and one adapter by turns; all others are marked long."""
    found = []
    for section, names in (
        ("stage", quantizer_runs.stages()),
        ("adapter", quantizer_runs.adapters()),
    ):
        for number, quantizer in enumerate(quantizer_runs.QUANTIZERS):
            for place, name in enumerate(names):
                chosen = place == number % len(names)
                marks = [] if chosen else [pytest.mark.long]
                found.append(pytest.param(quantizer, section, name, marks=marks))
    return found


@pytest.mark.parametrize(("quantizer", "section", "name"), cells())
def test_a_cell_comes_out_as_it_stands_on_the_page(quantizer: str, section: str, name: str) -> None:
    if quantizer == "eetq" and torch.cuda.is_available():
        pytest.skip("the page was written without a GPU")
    assert (
        quantizer_runs.cell(quantizer, **{section: name}) == runs()[f"{section}s"][quantizer][name]
    )


def test_the_page_has_all_stages_and_adapters() -> None:
    """Else run quantizer_runs.py, as it says, then scripts/dev.py fix."""
    found = runs()
    for section, names in (
        ("stages", quantizer_runs.stages()),
        ("adapters", quantizer_runs.adapters()),
    ):
        assert list(found[section]) == list(quantizer_runs.QUANTIZERS)
        assert all(sorted(row) == names for row in found[section].values())
