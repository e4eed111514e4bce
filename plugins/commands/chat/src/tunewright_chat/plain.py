"""Chat without a terminal: messages from standard input, replies to standard output."""

import contextlib
import json
import sys
from collections.abc import Iterator

from tunewright import TunewrightError
from tunewright.terminal import printable
from tunewright_chat.commands import respond
from tunewright_chat.session import Reply, arriving
from tunewright_chat.talk import Talk


def say(talk: Talk, text: str) -> None:
    """Send a message and print the reply as it is generated, then its tool calls; the next messages
    are then their results.

    Ctrl-C interrupts it: the text so far stays in the conversation, and KeyboardInterrupt is
    raised. A message without a reply is forgotten.
    """
    _show(talk, talk.ask(text))


def _show(talk: Talk, replies: list[Reply]) -> None:
    for results, each in talk.rounds(replies):
        for result in results:
            given = result if len(talk.sessions) > 1 else f"gives {result}"
            print(printable(f"({given})"), file=sys.stderr)
        _print(each, named=len(talk.sessions) > 1)


def _print(replies: list[Reply], named: bool) -> None:
    """Print the first reply as it is generated, and the others after it."""
    with contextlib.closing(arriving(replies)) as pieces:
        for number, reply in enumerate(replies):
            if named:
                print(printable(f"[{reply.session.name}]"))
            if number:
                print(printable(reply.raw.lstrip()), end="")
            else:
                _stream(reply, pieces)
            if reply.raw.strip():
                print()
    for reply in replies:
        _tell(reply, f"{reply.session.name} " if named else "")


def _stream(first: Reply, pieces: Iterator[tuple[Reply, str]]) -> None:
    printed = False
    try:
        for reply, piece in pieces:
            if reply is first:
                # some templates leave leading white space to the model
                text = piece if printed else piece.lstrip()
                printed = printed or bool(text)
                print(printable(text), end="", flush=True)
    except BaseException:
        if printed:
            print()
        raise


def _tell(reply: Reply, name: str) -> None:
    """Print on standard error what is no text of a reply."""
    if not reply.raw.strip():
        print(printable(f"({name}an empty reply)"), file=sys.stderr)
    for call in reply.calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        asked = "" if reply.session.settings.code else ": say what it gives"
        print(printable(f"({name}calls {call.name} with {arguments}{asked})"), file=sys.stderr)


def converse(talk: Talk) -> None:
    """Read messages and commands from standard input, one a line, until it ends. A second Ctrl-C in
    a row ends it, too."""
    prompt = "> " if sys.stdin.isatty() else ""
    interrupted = False
    while True:
        try:
            text = input(prompt).strip()
            if not text:
                continue
            interrupted = False
            outcome = respond(talk, text)
            if outcome.leaves:
                return
            if outcome.said:
                print(printable(outcome.said), file=sys.stderr)
            _show(talk, outcome.replies)
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            if interrupted:
                return
            interrupted = True
        except TunewrightError as error:
            print(printable(str(error)), file=sys.stderr)
