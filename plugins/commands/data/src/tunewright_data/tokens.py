"""Table of the tokens of an example, one per line."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from tunewright.terminal import printable

UNTRAINED = -100  # label of a token that is not trained


def show(console: Console, sample: Any, tokenizer: Any, *, colour: bool) -> None:
    """Print position, id and text of each token. Trained tokens are green, or in ⟦ ⟧ without
    colour; loss weights other than 1 are shown."""
    for name, tokens in columns(sample):
        if name != "input_ids":
            console.print(Text(f"{name}:", "bold"))
        width = len(str(max((token for token, _ in tokens), default=0)))
        for place, (token, weight) in enumerate(tokens):
            before, after = ("⟦", "⟧") if weight and not colour else ("", "")
            line = Text(f"{place:>6}  {token:>{width}}  ", "dim")
            line.append(
                before + printable(text_of(token, tokenizer)) + after,
                "black on green" if weight else "dim",
            )
            if weight not in (0, 1):
                line.append(f" (loss weight {weight:g})", "bold magenta")
            console.print(line, soft_wrap=True)


def columns(sample: Any) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each id column of an example: its name, and its tokens with their loss weights (0: not
    trained)."""
    for name, ids in sample.columns.items():
        if name == "input_ids" and "labels" in sample.columns:
            labels = sample.columns["labels"]
            weights = sample.columns.get("loss_weights") or [1.0] * len(ids)
            trained = [
                weight * (label != UNTRAINED) for label, weight in zip(labels, weights, strict=True)
            ]
            yield name, list(zip(ids, trained, strict=True))
        elif name == "document_ids":
            for number, each in enumerate(ids):
                yield f"{name}[{number}]", [(token, 1.0) for token in each]
        elif name.endswith("_ids"):
            yield name, [(token, float(name != "prompt_ids")) for token in ids]


def text_of(token: int, tokenizer: Any) -> str:
    """Text of a token as a Python string literal. A token that is part of a character: its name in
    the vocabulary."""
    text = tokenizer.decode([token])
    return repr(tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text or not text else text)
