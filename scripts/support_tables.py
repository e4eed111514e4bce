"""Tables of combinations for support_page.py, from support_cells.json, which support_runs.py
writes."""

import json
from pathlib import Path
from typing import Any

CELLS = Path(__file__).with_name("support_cells.json")
SHOWN = {"runs": "✓", "refused": "–", "not run here": "?", "refused by shapes": "▪", "fails": "✗"}
TITLES = {
    ("optimizer", "adapter"): "Optimizer × adapter",
    ("accelerator", "adapter"): "Accelerator × adapter",
    ("accelerator", "optimizer"): "Accelerator × optimizer",
    ("accelerator", "accelerator"): "Accelerator × accelerator",
}
LEGEND = """
## Optimizers, adapters and accelerators

Two steps of `sft` on a tiny Qwen3 on the CPU, in fp32, by `python3 scripts/support_runs.py`: two
processes with accelerators that need several. ✓: runs. –: refused by `recipe check`, for the reason
below the table. ▪: refused when the model is loaded, since the shapes of its weights decide. ?: not
run here, since it needs a GPU. Empty: not tried yet. With accelerators those adapters and
optimizers are tried that act in ways of their own; others are like `lora` and `adamw`.

Unsloth is left out: version 2026.10.9 needs transformers up to 5.17, datasets below 5 and trl up to
1.15, older than those that Tunewright is built on, so that the two cannot be installed together.
"""


def cells() -> dict[tuple[str, ...], dict[str, str]]:
    """(kind, name, kind, name) → result, and reason where it does not run."""
    found = json.loads(CELLS.read_text("utf-8"))
    return {tuple(key.split()): value for key, value in found.items()}


def tables() -> str:
    return LEGEND + "".join(
        _table(title, {key: cell for key, cell in cells().items() if key[::2] == kinds})
        for kinds, title in TITLES.items()
    )


def _table(title: str, found: dict[tuple[str, ...], dict[str, Any]]) -> str:
    rows, columns = (sorted({key[place] for key in found}) for place in (1, 3))
    results = {(key[1], key[3]): cell for key, cell in found.items()}
    lines = [
        f"\n### {title}\n",
        "| | " + " | ".join(f"`{name}`" for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        shown = (
            SHOWN[results[row, column]["result"]] if (row, column) in results else ""
            for column in columns
        )
        lines.append(f"| `{row}` | " + " | ".join(shown) + " |")
    reasons: dict[str, list[str]] = {}
    for (row, column), cell in sorted(results.items()):
        if cell["result"] not in ("runs", "not run here"):
            reasons.setdefault(cell["reason"], []).append(f"`{row}` × `{column}`")
    lines += ["", *(f"- {', '.join(where)}: {why}" for why, where in sorted(reasons.items()))]
    return "\n".join(lines) + "\n"
