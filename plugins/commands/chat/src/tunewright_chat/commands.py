"""Commands of a chat, such as `/undo`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright_chat import saved
from tunewright_chat.session import Reply
from tunewright_chat.talk import KINDS, Talk


@dataclass
class Outcome:
    """Text, replies or a draft that a command hands to the screen."""

    said: str = ""  # to print
    replies: list[Reply] = field(default_factory=list)  # to generate
    draft: str = ""  # text of the next prompt
    leaves: bool = False


def respond(talk: Talk, text: str) -> Outcome:
    """Carry out a command, or send a message; `//` begins a message with a slash. Raises
    RecipeError."""
    word = (text.split() or [""])[0]
    if word.startswith("/") and not word.startswith("//") and word[1:] not in KINDS:
        return perform(talk, text)
    replies = talk.ask(text.removeprefix("/") if text.startswith("//") else text)
    files = len(talk.media)
    waiting = "1 file goes" if files == 1 else f"{files} files go"
    return Outcome(f"{waiting} with the next message" if files else "", replies)


def perform(talk: Talk, line: str) -> Outcome:
    """Carry out a command with its argument. Raises RecipeError."""
    name, _, argument = line.partition(" ")
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        hint = f"{hint}; a message that begins with / is written with //"
        raise RecipeError("there is no such command", place=name, hint=hint)
    return COMMANDS[name][1](talk, argument.strip())


def _help(talk: Talk, argument: str) -> Outcome:
    width = max(len(usage) for usage, _ in HELP)
    return Outcome("\n".join(f"{usage:{width}}  {about}" for usage, about in HELP))


def _new(talk: Talk, argument: str) -> Outcome:
    talk.new()
    return Outcome("a new conversation")


def _system(talk: Talk, argument: str) -> Outcome:
    settings = talk.settings
    if argument:
        settings.system = None if argument == "none" else argument
    return Outcome("no system prompt" if settings.system is None else f"system: {settings.system}")


def _regenerate(talk: Talk, argument: str) -> Outcome:
    return Outcome(replies=talk.again())


def _edit(talk: Talk, argument: str) -> Outcome:
    before = talk.undo()
    return Outcome(replies=talk.ask(argument)) if argument else Outcome(draft=before)


def _undo(talk: Talk, argument: str) -> Outcome:
    return Outcome(f"taken back: {talk.undo()}")


def _save(talk: Talk, argument: str) -> Outcome:
    path = _path("/save", argument)
    for number, session in enumerate(talk.sessions, 1):
        one = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        system = session.request(()).conversation.messages
        saved.save(one, [*system, *session.messages], talk.settings.tools)
    return Outcome(f"saved to {path}")


def _load(talk: Talk, argument: str) -> Outcome:
    messages = saved.load(_path("/load", argument))
    if messages and messages[0].role == "system":
        content = messages.pop(0).content
        talk.settings.system = content if isinstance(content, str) else None
    talk.new()
    for session in talk.sessions:
        session.messages = [*messages]
    return Outcome(f"{len(messages)} messages")


def _params(talk: Talk, argument: str) -> Outcome:
    for text in argument.split():
        talk.settings.change(text)
    return Outcome(talk.settings.shown())


def _raw(talk: Talk, argument: str) -> Outcome:
    found = [s.last.prompt + s.last.raw for s in talk.sessions if s.last is not None]
    if not found:
        raise RecipeError("there is no reply yet", place="/raw")
    return Outcome("\n\n".join(found))


def _thinking(talk: Talk, argument: str) -> Outcome:
    found = [s.last.reasoning for s in talk.sessions if s.last is not None and s.last.reasoning]
    if not found:
        raise RecipeError("the last reply has no thinking", place="/thinking")
    return Outcome("\n\n".join(found))


def _adapter(talk: Talk, argument: str) -> Outcome:
    session = talk.first
    if argument:
        if argument not in session.engine.models:
            hint = did_you_mean(argument, session.engine.models)
            hint = f"{hint}; --adapter NAME=PATH loads one" if hint else ""
            raise RecipeError(f"there is no {argument!r}", place="/adapter", hint=hint)
        session.model = argument
    used = session.model or session.engine.models[0]
    return Outcome(
        "\n".join(f"{'*' if name == used else ' '} {name}" for name in session.engine.models)
    )


def _quit(talk: Talk, argument: str) -> Outcome:
    return Outcome(leaves=True)


def _path(place: str, argument: str) -> Path:
    if not argument:
        raise RecipeError("expected a file", place=place)
    return Path(argument).expanduser()


#: name → usage and function
COMMANDS: dict[str, tuple[str, Callable[[Talk, str], Outcome]]] = {
    "/help": ("show the commands", _help),
    "/new": ("begin a new conversation", _new),
    "/system": ("TEXT: set the system prompt; none: remove it", _system),
    "/regenerate": ("generate the last reply again", _regenerate),
    "/edit": ("change the last message, or replace it by a TEXT", _edit),
    "/undo": ("take the last message and its reply back", _undo),
    "/save": ("FILE: save the conversation as JSON; to a .jsonl file a line is added", _save),
    "/load": ("FILE: go on with a saved conversation", _load),
    "/params": ("NAME=VALUE: set temperature, top_p, seed, enable_thinking and so on", _params),
    "/raw": ("show the last prompt and reply with all special tokens", _raw),
    "/thinking": ("show the thinking of the last reply", _thinking),
    "/adapter": ("NAME: let this adapter answer, or the model itself", _adapter),
    "/quit": ("leave; also Ctrl-D, or Ctrl-C twice", _quit),
}
_ALIASES = {"/clear": "/new", "/exit": "/quit"}
HELP = [
    *((name, about) for name, (about, _) in COMMANDS.items()),
    ("/image, /video, /audio", "PATH: on a line of a message: put the file there"),
    ("Enter, Alt-Enter", "send the message; begin a new line"),
    ("Ctrl-C", "stop the reply"),
]
