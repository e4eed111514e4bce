"""Chat in a terminal: a prompt with several lines, history and completion, and streamed replies."""

from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console

from tunewright import TunewrightError
from tunewright_chat.commands import COMMANDS, respond
from tunewright_chat.screen import Screen
from tunewright_chat.settings import PARAMS, THINKING
from tunewright_chat.talk import KINDS, Talk

_MEDIA = tuple(f"/{kind}" for kind in KINDS)
_FILES = ("/save", "/load", *_MEDIA)


class CommandCompleter(Completer):
    """Completes commands, and their arguments: files, settings, adapters."""

    def __init__(self, talk: Talk) -> None:
        self._talk, self._paths = talk, PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        line = document.current_line_before_cursor
        command, space, argument = line.partition(" ")
        if not line.startswith("/"):
            return
        if not space:
            yield from _beginning(command, (*COMMANDS, *_MEDIA))
        elif command in _FILES:
            yield from self._paths.get_completions(Document(argument), event)
        elif command == "/params":
            names = (*PARAMS, THINKING)
            yield from _beginning(argument.rpartition(" ")[2], [f"{name}=" for name in names])
        elif command == "/adapter":
            yield from _beginning(argument, self._talk.first.engine.models)


def _beginning(text: str, known: Iterable[str]) -> Iterable[Completion]:
    return (Completion(each, -len(text)) for each in known if each.startswith(text))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


def converse(talk: Talk, console: Console, history: History) -> None:
    """Read messages and commands until the user leaves: /quit, Ctrl-D, or Ctrl-C twice in a row."""
    screen = Screen(console)
    prompt: PromptSession[str] = PromptSession(
        history=history,
        multiline=True,
        key_bindings=_keys(),
        completer=CommandCompleter(talk),
        complete_while_typing=False,
        enable_history_search=False,
        prompt_continuation="  ",
    )
    for session in talk.sessions:
        screen.say(" · ".join(filter(None, (session.name, session.about))))
    screen.say("/help shows the commands, Ctrl-D leaves.")
    draft, interrupted, is_compared = "", False, len(talk.sessions) > 1
    while True:
        try:
            text = prompt.prompt(_label(talk), default=draft).strip()
            draft = ""
            if not text:
                continue
            interrupted = False
            outcome = respond(talk, text)
            if outcome.leaves:
                return
            if outcome.said:
                screen.say(outcome.said)
            draft = outcome.draft
            for results, replies in talk.rounds(outcome.replies):
                for result in results:
                    screen.say(f"  {result}" if is_compared else f"  gives {result}")
                screen.show(replies, named=is_compared)
        except EOFError:
            return
        except KeyboardInterrupt:
            if interrupted:
                return
            interrupted = True
            screen.say("(Ctrl-C again leaves)")
        except TunewrightError as error:
            screen.say(str(error), "red")


def _label(talk: Talk) -> FormattedText:
    asked = talk.open_call
    return FormattedText([("bold", f"{asked.title} gives: " if asked else "> ")])
