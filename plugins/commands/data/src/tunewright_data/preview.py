"""Preview of a dataset in the terminal."""

from statistics import median
from typing import Any

from rich.console import Console
from rich.text import Text

from tunewright.terminal import printable, show_trained
from tunewright.words import counted
from tunewright_data import media, tokens

UNTRAINED = -100  # label of a token that is not trained
BARS, WIDTH = 10, 40  # of the histogram: bars, and characters of the longest bar


def show(preview: Any, tokenizer: Any = None) -> None:
    """Print the result of a dataset plugin's `preview`: samples (each with origin, text, trained,
    input_ids, labels and, where the model takes media, media), lengths (tokens per example),
    trained_tokens (total), rows_read, dropped and notes. tokenizer: also print the tokens of each
    example (samples then have `columns`)."""
    console = Console()
    colour = console.is_terminal and not console.no_color

    def line(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style), soft_wrap=True)

    for sample in preview.samples:
        trained = sum(label != UNTRAINED for label in sample.labels)
        line(
            f"\n{sample.origin}: {len(sample.input_ids):,} tokens, {trained:,} of them trained",
            "bold",
        )
        for medium in getattr(sample, "media", ()):
            line(f"  {media.described(medium)}", "magenta")
        console.print(show_trained(sample.text, sample.trained, colour=colour), soft_wrap=True)
        if tokenizer is not None:
            tokens.show(console, sample, tokenizer, colour=colour)
    line(
        f"\n{counted(preview.rows_read, 'row')} read, {sum(preview.dropped.values()):,} dropped",
        "bold",
    )
    for reason, count in preview.dropped.items():
        line(f"  {count:,}: {reason}", "yellow")
    for note in preview.notes:
        line(f"  {note}", "cyan")
    if preview.lengths:
        lengths, total = sorted(preview.lengths), sum(preview.lengths)
        line(
            f"\nTokens of a row: {lengths[0]:,} to {lengths[-1]:,}, median {median(lengths):,.0f}",
            "bold",
        )
        for bar in histogram(lengths):
            line(f"  {bar}")
        share = 100 * preview.trained_tokens / total
        line(
            f"\n{preview.trained_tokens:,} of {total:,} tokens are trained ({share:.1f} %)", "bold"
        )


def histogram(lengths: list[int]) -> list[str]:
    """Lines of a bar chart of lengths (in tokens, ascending)."""
    size = -(-(lengths[-1] + 1) // BARS)  # tokens per bar, rounded up
    counts = [0] * (lengths[-1] // size + 1)
    for length in lengths:
        counts[length // size] += 1
    digits = len(f"{lengths[-1]:,}") + 1
    return [
        f"{index * size:>{digits},} to {(index + 1) * size - 1:<{digits},} "
        f"{'█' * -(-WIDTH * count // max(counts))} {count:,}"
        for index, count in enumerate(counts)
    ]
