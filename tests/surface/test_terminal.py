"""Text on its way to a terminal."""

from rich.console import Console

from tunewright.terminal import printable, show_trained
from tunewright.types import Span


def test_printable_keeps_text_and_length_and_shows_what_a_terminal_would_obey() -> None:
    evil = "a\tb\nc\x00\x1b[2J\x07\x7f\x9b\u202e\ud800é🙂"
    assert printable(evil) == "a\tb\nc␀␛[2J␇␡\ufffd\ufffd\ufffdé🙂"
    assert len(printable(evil)) == len(evil)
    printable(evil).encode()  # lone surrogates could not be


def test_trained_spans_are_shown_in_colour_or_in_brackets() -> None:
    text, spans = "ask\x1b[answer]ask", [Span(3, 5), Span(5, 12, weight=0.5)]
    plain = show_trained(text, spans, colour=False).plain
    assert plain == "ask⟦␛[⟧⟦answer]⟧(loss weight 0.5)ask"
    console = Console(force_terminal=True, color_system="standard", width=200)
    with console.capture() as captured:
        console.print(show_trained(text, spans, colour=True))
    assert "\x1b[30;42mam" not in captured.get()
    assert "\x1b[30;42manswer]\x1b[0m" in captured.get()
    assert "\x1b[2mask\x1b[0m" in captured.get()
