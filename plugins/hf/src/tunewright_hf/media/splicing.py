"""Replace pieces of a rendered text, whose spans move along."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tunewright.types import Rendered, Span

__all__ = ["spliced"]


def spliced(rendered: Rendered, changes: Sequence[tuple[int, int, str]]) -> Rendered:
    """The text with each [start, end) replaced; spans move along."""
    pieces, at = [], 0
    for start, end, text in changes:
        pieces += [rendered.text[at:start], text]
        at = end
    pieces.append(rendered.text[at:])

    def moved(place: int) -> int:
        return place + sum(
            len(text) - (end - start) for start, end, text in changes if end <= place
        )

    def all_moved(spans: Iterable[Span]) -> list[Span]:
        return [Span(moved(span.start), moved(span.end), span.weight) for span in spans]

    return replace(
        rendered,
        text="".join(pieces),
        trained=all_moved(rendered.trained),
        untrusted=all_moved(rendered.untrusted),
        answers=all_moved(rendered.answers),
    )
