"""The page of what works with what for `make_docs.py`: quantizers, from support.toml and
support_quantizers.json."""

import json
import tomllib
from pathlib import Path
from typing import Any

from support_tables import tables

DATA = Path(__file__).with_name("support.toml")
#: written by tests/envs/quantizers/quantizer_runs.py: "stages" or "adapters" → quantizer → name →
#: "runs", "not run here" or "refused: REASON"
RUNS = Path(__file__).with_name("support_quantizers.json")


def support_page(note: str) -> str:
    """The text of docs/reference/support.md."""
    parts = [
        f"# Support\n\n{note}Which quantizers give how many bits per weight. *Run*: LoRA was "
        "trained on it on a CPU, in the tests of the\nenvironment `quantizers` (`python3 "
        "scripts/dev.py env quantizers`). *Not run here*: its code was never run by us.\n\n"
        "## Quantizers by bits\n\n"
        "| bits | quantizer | options | LoRA | |\n|---|---|---|---|---|\n"
    ]
    parts += [_line(row) for row in rows()]
    found = runs()
    parts.append(
        "\n## Quantizers by stage\n\n"
        "Two steps of each stage with LoRA (with `qat` in full) on a tiny model, on a CPU.\n\n"
    )
    parts.append(_table(found["stages"]))
    parts.append(
        "\n## Quantizers by adapter\n\n"
        "Two steps of the stage sft. Merged into the dequantized weights, the adapter does what it "
        "does on the quantized\nones. *refused*: by `recipe check`, with the reason below.\n\n"
    )
    parts.append(_table(found["adapters"]))
    return "".join(parts) + tables()


def rows() -> list[dict[str, Any]]:
    return tomllib.loads(DATA.read_text("utf-8"))["row"]


def runs() -> dict[str, dict[str, dict[str, str]]]:
    """The outcomes of the runs, as the file has them."""
    return json.loads(RUNS.read_text("utf-8"))


def _line(row: dict[str, Any]) -> str:
    options = ", ".join(f"{key}: {value}" for key, value in row.get("options", {}).items())
    ran = "run" if row["run"] else "not run here"
    shown = f"`{options}`" if options else ""
    return f"| {row['bits']} | `{row['quantizer']}` | {shown} | {ran} | {row.get('note', '')} |\n"


def _table(found: dict[str, dict[str, str]]) -> str:
    """A table of quantizer → name → outcome, with the reasons of refusals as notes below it."""
    reasons: dict[str, int] = {}
    names = sorted({name for row in found.values() for name in row})
    lines = [
        "| | " + " | ".join(f"`{name}`" for name in found) + " |\n",
        "|---|" + "---|" * len(found) + "\n",
    ]
    for name in names:
        cells = [_cell(row[name], quantizer, name, reasons) for quantizer, row in found.items()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |\n")
    if reasons:
        lines.append("\n")
    lines += [
        f"{number}. {reason[:1].upper()}{reason[1:]}.\n" for reason, number in reasons.items()
    ]
    return "".join(lines)


def _cell(outcome: str, quantizer: str, name: str, reasons: dict[str, int]) -> str:
    """A cell; `reasons` gets those that it does not have yet, in words for all quantizers and
    names."""
    verb, _, reason = outcome.partition(": ")
    if not reason:
        return outcome
    general = reason.replace(f"adapter {name}", "the adapter").replace(name, "the adapter")
    general = general.replace(quantizer.partition(" ")[0], "the quantizer")
    return f"{verb} ({reasons.setdefault(general, len(reasons) + 1)})"
