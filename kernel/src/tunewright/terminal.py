"""Text from data and models on its way to a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from tunewright.types import Span

# One character for one, so that spans still fit: what a terminal would obey is shown as a picture
# of itself.
_PICTURES = {
    code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)
}  # C0 but tab, newline
_PICTURES[0x7F] = 0x2421
for _first, _last in ((0x80, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF)):
    # C1, text direction overrides, and lone surrogates, which no output encoding takes
    _PICTURES.update(dict.fromkeys(range(_first, _last + 1), 0xFFFD))


def printable(text: str) -> str:
    """The text with control characters, but tab and newline, replaced by visible ones; as long as
    before."""
    return text.translate(_PICTURES)


def show_trained(text: str, trained: "list[Span]", *, colour: bool) -> "Text":
    """A rendered text for rich: what is trained on green, or in ⟦ ⟧ without colour, all else dim.

    A loss weight other than 1 is noted behind its span.
    """
    from rich.text import Text

    before, after = ("", "") if colour else ("⟦", "⟧")
    shown, done = Text(), 0
    for span in trained:
        shown.append(printable(text[done : span.start]), "dim")
        shown.append(before + printable(text[span.start : span.end]) + after, "black on green")
        if span.weight != 1:
            shown.append(f"(loss weight {span.weight:g})", "bold magenta")
        done = span.end
    shown.append(printable(text[done:]), "dim")
    return shown
