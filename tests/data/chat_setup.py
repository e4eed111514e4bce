"""Records and rows of the dataset's tests."""

import json
from pathlib import Path
from typing import Any

from data.running import tokenizer


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    """Texts of user and assistant in turn."""
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    } | more


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def trained(row: dict[str, Any]) -> str:
    return tokenizer().decode([label for label in row["labels"] if label != -100])
