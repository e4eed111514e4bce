"""Replies in a terminal: Markdown that streams, thinking in one line, two models side by side."""

import contextlib
import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunewright.terminal import printable
from tunewright_chat.session import Reply, arriving, described

# HTML is text: a reply that explains it must not lose its tags
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class ReplyMarkdown(Markdown):
    """A reply's Markdown. A link shows its address: what it is called may mislead."""

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(printable(text))


def finished_blocks(text: str, start: int) -> int:
    """Length of the text up to which its Markdown blocks are finished. start: place where a block
    begins.

    A block ends at an empty line before a line that is not indented, outside of code fences.
    """
    end, place, fence, after_empty = start, start, "", False
    for line in text[start:].splitlines(keepends=True):
        if fence:
            closes = (match := _FENCE.match(line)) and match[1].startswith(fence)
            if closes and not line.strip(" \n`~"):
                fence = ""
        else:
            if after_empty and line.strip() and not line[0].isspace():
                end = place
            fence = match[1] if (match := _FENCE.match(line)) else ""
        after_empty = not line.strip()
        place += len(line)
    return end


class Screen:
    """Shows replies while they arrive."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(printable(text), style))

    def show(self, replies: list[Reply], *, named: bool) -> None:
        """Show replies until they end, or Ctrl-C: then KeyboardInterrupt is raised. Raises
        TunewrightError."""
        with contextlib.closing(arriving(replies)) as pieces:
            if named and replies:
                self._several(replies, pieces)
            elif replies:
                self._one(replies[0], pieces)
        for reply in replies:
            self._end(reply, f"{reply.session.name}: " if named else "")

    def _one(self, reply: Reply, pieces: Iterator[tuple[Reply, str]]) -> None:
        """Finished blocks are printed for good; the rest is drawn anew with every piece."""
        done = 0
        is_folded = False
        try:
            with self._live() as live:
                live.update(_waiting(reply))
                for _ in pieces:
                    if reply.text and reply.reasoning and not is_folded:
                        self.console.print(_folded(reply))
                        is_folded = True
                    if (end := finished_blocks(reply.text, done)) > done:
                        self._print(reply.text[done:end], is_first=not done)
                        done = end
                    live.update(_tail(reply, done))
        finally:
            if reply.reasoning and not is_folded:
                self.console.print(_folded(reply))
            if rest := reply.text[done:].rstrip():
                self._print(rest, is_first=not done)

    def _several(self, replies: list[Reply], pieces: Iterator[tuple[Reply, str]]) -> None:
        try:
            with self._live() as live:
                live.update(_beside(replies))
                for _ in pieces:
                    live.update(_beside(replies))
        finally:
            self.console.print(_beside(replies))

    def _live(self) -> Live:
        return Live(
            console=self.console,
            refresh_per_second=10,
            transient=True,
            vertical_overflow="ellipsis",
        )

    def _print(self, text: str, is_first: bool) -> None:
        if not is_first:
            self.console.print()
        self.console.print(ReplyMarkdown(text))

    def _end(self, reply: Reply, name: str) -> None:
        for call in reply.calls:
            self.console.print(Text(printable(f"{name}⚙ {described(call)}"), "cyan"))
        if not reply.raw.strip():
            self.say(f"{name}(an empty reply)")
        if reply.finish_reason == "length":
            self.say(f"{name}(cut off: /params max_new_tokens= lets replies be longer)")


def _folded(reply: Reply) -> Text:
    words = len(reply.reasoning.split())
    return Text(f"▸ thought for {words} words (/thinking shows them)", "dim italic")


def _waiting(reply: Reply) -> RenderableType:
    last = printable(reply.reasoning).strip().rpartition("\n")[2]
    text = Text(
        f"thinking: {last}" if last else "", "dim italic", no_wrap=True, overflow="ellipsis"
    )
    return Spinner("dots", text, style="dim")


def _tail(reply: Reply, done: int) -> RenderableType:
    if not reply.text:
        return _waiting(reply)
    tail = ReplyMarkdown(reply.text[done:])
    return Group(Text(), tail) if done else tail


def _beside(replies: list[Reply]) -> RenderableType:
    table = Table.grid(expand=True)
    for _ in replies:
        table.add_column(ratio=1)
    table.add_row(*(Panel(_whole(reply), title=Text(reply.session.name)) for reply in replies))
    return table


def _whole(reply: Reply) -> RenderableType:
    if not reply.text and reply.finish_reason is None:
        return _waiting(reply)
    parts: list[RenderableType] = [_folded(reply)] if reply.reasoning else []
    return Group(*parts, ReplyMarkdown(reply.text))
