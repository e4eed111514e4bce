"""Tries the patterns of an untrusted tokenizer.json in a process that can be killed.

Patterns are matched by backtracking (Oniguruma): one may take hours on 1,000 letters, or panic.
Engines without backtracking do not support the look-ahead that real tokenizers use. So the
tokenizer's steps, without its vocabulary, are run on texts of long runs: of many kinds of
characters, and of what the patterns themselves spell.
"""

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_CPU_SECONDS = 3  # real tokenizers take about 0.05
_WALL_SECONDS = 60.0  # if the system cannot limit CPU time, and for busy machines
_MEMORY = 1 << 30  # bytes of address space
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")

_LONG = 5_000  # characters of a run that reveals cubic time
_REPEATS = 60  # repeats of one to three characters that reveal exponential time
_WINDOWS = 1_000  # runs of text that patterns spell
_SORTS = "aA0 \n\t._'é中ह🙂\u0301"
_SYNTAX = re.compile(r"\\\W|\\[pPkg]\{[^}]*\}|\\\w|\(\?<?[a-zA-Z]*[:=!>]|[()\[\]{}|*+?^$.]")
_ESCAPED = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4}))")


@functools.lru_cache(maxsize=64)
def find_problem(pipeline: str) -> str | None:
    """Describe the problem with a tokenizer's steps; None if none was found.

    pipeline: normalizer, pre_tokenizer, post_processor and decoder, as JSON. No process is started
    if it has neither a regular expression nor a character table.
    """
    if '"Regex"' not in pipeline and '"Precompiled"' not in pipeline:
        return None
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(
            # -P: do not import from the current folder
            [sys.executable, "-P", "-m", "tunewright_hf.models.tokenizer_probe"],
            input=pipeline.encode(),
            capture_output=True,
            timeout=_WALL_SECONDS,
            env=environment | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its steps take more than {_WALL_SECONDS:g} s for a short text"
    try:
        problem = json.loads(done.stdout)["problem"]
    except (ValueError, KeyError, TypeError):
        return f"its steps take more than {_CPU_SECONDS} s, or all memory, for a short text"
    return None if problem is None else str(problem)


# ---- in the worker -------------------------------------------------------------------------------


def texts(patterns: list[str]) -> Iterator[str]:
    """Yield runs of characters, each followed by another character, and by everything that patterns
    spell: an engine first searches for required characters."""
    spelled = _spelled("".join(patterns))
    end = f".\n!{''.join(dict.fromkeys(spelled))[:200]}{spelled[:200]}"
    yield "".join(chr(code) for code in range(0x20, 0x3100))
    for character in _SORTS:
        yield character * _LONG + end
    for first in (*range(0xA0, 0x3100, 0x80), 0xAC00, 0xFF10, 0x10400, 0x1D400, 0x1F300):
        samples = [chr(code) for code in range(first, first + 0x80) if chr(code).isalnum()]
        yield (samples or [chr(first)])[0] * _REPEATS + end
    windows = dict.fromkeys(
        spelled[at : at + size] for size in (1, 2, 3) for at in range(len(spelled) - size + 1)
    )
    for window in list(windows)[:_WINDOWS]:
        yield window * _REPEATS + end


def _spelled(pattern: str) -> str:
    """The literal characters of a pattern, roughly: without its syntax and classes."""

    def kept(match: re.Match[str]) -> str:
        return (
            ""
            if match[0][1:].isalnum() or match[0][0] != "\\" or len(match[0]) > 2
            else match[0][1]
        )

    return _SYNTAX.sub(kept, _ESCAPED.sub(_character, pattern))


def _character(match: re.Match[str]) -> str:
    code = int(next(filter(None, match.groups())), 16)
    return chr(code) if code < 0xD800 or 0xDFFF < code <= sys.maxunicode else ""


def _patterns(value: Any) -> Iterator[str]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "Regex" and isinstance(item, str):
            yield item
        elif isinstance(item, dict | list):
            yield from _patterns(item)


def _limit() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows does not have it
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _try(pipeline: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    whole = {"version": "1.0", "added_tokens": [], "model": model} | pipeline
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    for text in texts(list(_patterns(pipeline))):
        tokenizer.encode(text)
        if tokenizer.decoder is not None:
            tokenizer.decoder.decode([text])


def main() -> None:
    _limit()
    problem = None
    try:
        _try(json.load(sys.stdin))
    except BaseException as error:  # includes Rust panics
        said = " ".join(str(error).split())[:300]
        problem = f"its steps cannot be run: {said}"
    print(json.dumps({"problem": problem}))


if __name__ == "__main__":
    main()
