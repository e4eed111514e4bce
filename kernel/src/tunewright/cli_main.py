"""End of a command: exit code, and one line per error."""

import errno
import gc
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import typer
from typer.exceptions import TyperException

from tunewright.errors import RecipeError, Stopped, TunewrightError, did_you_mean
from tunewright.registry import shipped_table
from tunewright.terminal import printable


def ended(call: Callable[[], object], debug: bool) -> int:
    """Call, and return the exit code. debug: print tracebacks."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage
    _prepare_streams()
    try:
        code = _code(call, debug)
    finally:
        is_written = _flush()
    if not is_written and not code:
        return _failed(["standard output cannot be written"], 1, debug)
    return code


def _code(call: Callable[[], object], debug: bool) -> int:
    try:
        code = call()
        if code == 130:  # Typer makes this of Ctrl-C
            return _failed(["stopped"], 130, debug)
        return code if isinstance(code, int) else 0
    except SystemExit:
        raise
    except Stopped as error:  # of which every rank would say the same
        is_first = os.environ.get("RANK", "0") == "0"
        return _failed(error.lines if is_first else [], error.exit_code, debug)
    except TunewrightError as error:
        return _failed(error.lines, error.exit_code, debug)
    except TyperException as error:
        return _misused(error, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(["stopped"], 130, debug)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if error.errno == errno.ENOSPC:
            place = f"{error.filename}: " if error.filename else ""
            return _failed([f"{place}cannot be written: {error.strerror}"], 1, debug)
        return _failed([_defect(error)], 1, debug)
    except BaseException as error:  # also the panics of libraries in Rust
        return _failed([_defect(error)], 1, debug)


def _defect(error: BaseException) -> str:
    said = " ".join(str(error).split())
    said = said if len(said) <= 1000 else f"{said[:997]}..."
    hint = "this is a defect, or a library's own error; --debug shows where"
    return f"{type(error).__name__}: {said} ({hint})"


def _failed(lines: Sequence[str], code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for line in lines:
        print(f"error: {printable(line)}", file=sys.stderr)
    return code


# ---- the command line itself ---------------------------------------------------------------------


def _misused(error: TyperException, debug: bool) -> int:
    """Print a command-line mistake as one line; print help if a group was called without a verb."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return 2
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    hints = [f"see {context.command_path if context else 'tunewright'} --help"]
    if wrong := re.match("No such command '(.*)'", message):
        message = message[: wrong.end()]
        verbs = getattr(context.command, "commands", {}) if context else {}
        groups = context.command_path.split()[1:] if context else []
        hints.insert(0, _instead(groups, wrong[1], verbs))
    elif possible := getattr(error, "possibilities", None):
        message = message.partition(" (")[0].partition(". Did")[0]
        hints.insert(0, f"did you mean {sorted(possible)[0]}?")
    problem = message[:1].lower() + message[1:]
    return _failed([str(RecipeError(problem, hint="; ".join(filter(None, hints))))], 2, debug)


def _instead(groups: list[str], verb: str, verbs: Iterable[str]) -> str:
    """Suggest what to call instead of an unknown verb, at the top or in a group."""
    known = shipped_table()
    if brings := known["known"]["command"].get(".".join([*groups, verb])):
        return f"pip install {brings}"
    if not groups and verb in known["verbs"]:
        return str(known["verbs"][verb])
    return did_you_mean(verb, verbs)


# ---- standard streams ----------------------------------------------------------------------------


def _prepare_streams() -> None:
    """Replace characters that a stream cannot encode, and closed streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _flush() -> bool:
    """Flush the streams. Returns whether standard output accepted it; else the interpreter must not
    try again at exit."""
    is_written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            is_pipe = isinstance(error, BrokenPipeError)
            is_written = is_written and (stream is sys.stderr or is_pipe)
            if isinstance(stream, io.TextIOWrapper):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return is_written
