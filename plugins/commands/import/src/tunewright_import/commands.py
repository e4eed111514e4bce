"""Shell scripts that start a training: the flags of their command."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from tunewright_import.translation import Refused

_SET = re.compile(r"^([A-Za-z_]\w*)=(.*)$", re.DOTALL)
_USED = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_EXPR = re.compile(r"\$\(expr (\S+) ([-+*/]) (\S+)\)")
_ENDS = frozenset({"&&", "||", ";", "|", "&", ">", ">>", "2>&1", "<"})
#: flags of `accelerate launch` and torchrun, which stand before the program
_LAUNCHERS = ("accelerate", "torchrun", "python", "python3", "deepspeed")


@dataclass(slots=True)
class Command:
    """A command of a script."""

    verb: str  # of the program, such as sft
    flags: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # of the environment


def find_command(text: str, program: str, verbs: Mapping[str, str]) -> Command:
    """The one command in a script that trains: `PROGRAM VERB --flags`, or a Python file of the
    verb's name. verbs: that are training. Raises Refused where there is none, or several."""
    known: dict[str, str] = {}
    found = [each for each in _commands(text, program, known) if each.verb in verbs]
    if len(found) != 1:
        count = "several commands" if found else f"no command of {program}"
        raise Refused(f"holds {count} that train: {', '.join(sorted(verbs))}")
    return found[0]


def _commands(text: str, program: str, known: dict[str, str]) -> Iterator[Command]:
    exported: dict[str, str] = {}
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        try:
            words = shlex.split(_EXPR.sub(partial(_computed, known), line))
        except ValueError:  # an open quote: a text in several lines
            continue
        # shlex would take the # of ID#500 for the beginning of a comment
        comment = next((n for n, word in enumerate(words) if word.startswith("#")), len(words))
        words = words[:comment]
        exports = words[:1] == ["export"]
        words, assigned = _assigned(words[1:] if exports else words, known)
        if exports:
            exported |= assigned
        if not words:
            known |= assigned
            continue
        place = _start(words, program)
        if place is not None:
            verb = words[place].rpartition("/")[2].removesuffix(".py")
            flags = _flags(words[place + 1 :], known)
            yield Command(verb, flags, {**exported, **assigned})


def _assigned(words: list[str], known: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The words after NAME=VALUE, and the variables that are set."""
    found: dict[str, str] = {}
    while words and (match := _SET.match(words[0])):
        found[match[1]] = _USED.sub(lambda used: known.get(used[1] or used[2], used[0]), match[2])
        words = words[1:]
    return words, found


def _computed(known: Mapping[str, str], match: re.Match[str]) -> str:
    """The number that `expr A / B` gives; the text itself where A and B are no numbers."""
    parts = [known.get(part.strip("${}"), part) for part in (match[1], match[3])]
    if not all(part.isdecimal() for part in parts) or (match[2] == "/" and not int(parts[1])):
        return match[0]
    first, second = map(int, parts)
    results = {"+": first + second, "-": first - second, "*": first * second}
    return str(results[match[2]] if match[2] != "/" else first // second)


def _start(words: list[str], program: str) -> int | None:
    """Index of the verb, or of a Python file that stands for it."""
    for place, word in enumerate(words[:-1]):
        if word.startswith("--"):
            break
        if word.rpartition("/")[2] == program:
            return place + 1
    if words[0].rpartition("/")[2] in _LAUNCHERS:
        return next((n for n, word in enumerate(words) if word.endswith(".py")), None)
    return None


def _flags(words: list[str], known: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word in _ENDS:
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = [_value(value, known)] if equals else []
        elif name:
            found[name].append(_value(word, known))
        else:
            raise Refused(f"gives {word!r}, which is no flag")
    return {key: _joined(values) for key, values in found.items()}


def _joined(values: list[Any]) -> Any:
    return True if not values else values[0] if len(values) == 1 else values


def _value(word: str, known: Mapping[str, str]) -> Any:
    def of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in known:
            raise Refused(f"uses the shell variable {name}, which the script does not set")
        return known[name]

    text = _USED.sub(of, word)
    if "$(" in text or "`" in text:
        raise Refused(f"computes {word!r} in the shell")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
        try:
            return float(value)
        except ValueError:
            return value
    return text if value is None and text else value
