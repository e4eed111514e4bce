"""A conversation in a terminal."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from tunewright import TunewrightError
from tunewright.terminal import printable
from tunewright.types import Conversation, GenerateRequest, Message, ToolCall

if TYPE_CHECKING:
    from tunewright.types import RunContext

with contextlib.suppress(ImportError):  # Windows has no readline
    import readline  # noqa: F401


class Session:
    """What was said so far, and the model that answers."""

    def __init__(
        self,
        run: "RunContext",
        system: str | None,
        max_new_tokens: int,
        temperature: float,
        tools: list[dict[str, Any]],
    ) -> None:
        self._run, self._system, self._tools = run, system, tools
        self._max_new_tokens, self._temperature = max_new_tokens, temperature
        self.clear()

    def clear(self) -> None:
        self.messages = [] if self._system is None else [Message("system", self._system)]

    def say(self, text: str) -> None:
        """Print the reply as it comes, then the calls of tools in it; the next texts are then their
        results.

        Ctrl-C ends it: what was said until then stays in the conversation, and KeyboardInterrupt
        goes on. A message without a reply is taken back.
        """
        open_calls = self._open_calls()
        if open_calls:
            call = open_calls[0]
            turn = [*self.messages, Message("tool", text, tool_call_id=call.id, name=call.name)]
        else:
            turn = [*self.messages, Message("user", text)]
        if len(open_calls) > 1:  # the model waits for the results of all
            self.messages = turn
            return
        request = GenerateRequest(
            Conversation(turn, self._tools), self._max_new_tokens, self._temperature
        )
        answer = ""
        with contextlib.closing(self._run.call("engine", "generate", request)) as replies:
            try:
                for reply in replies:
                    piece = (
                        reply.text if answer else reply.text.lstrip()
                    )  # some templates leave the space to it
                    answer += piece
                    print(printable(piece), end="", flush=True)
            finally:
                if answer:
                    print()
                    message = self._run.plugin("template").parse_reply(answer.strip(), self._tools)
                    self.messages = [*turn, message]
        if not answer:
            print("(an empty reply)", file=sys.stderr)
        for call in self._open_calls():
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            print(
                printable(f"(calls {call.name} with {arguments}: say what it gives)"),
                file=sys.stderr,
            )

    def _open_calls(self) -> list[ToolCall]:
        """The last reply's calls of tools that have no result yet."""
        for results, message in enumerate(reversed(self.messages)):
            if message.role != "tool":
                return message.tool_calls[results:]
        return []


def converse(session: Session) -> None:
    """Read messages from standard input until its end."""
    prompt = "> " if sys.stdin.isatty() else ""
    if prompt:
        print("/clear begins anew, /exit or Ctrl-D leaves, Ctrl-C ends a reply.")
    while True:
        try:
            text = input(prompt).strip()
            if text == "/exit":
                return
            if text == "/clear":
                session.clear()
            elif text:
                session.say(text)
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
        except TunewrightError as error:
            print(printable(str(error)), file=sys.stderr)
