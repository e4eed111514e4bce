"""Side effects of importing a plugin, observed in a clean interpreter.

Importing torch takes seconds, which would slow down commands that only list or check; a plugin that
uses the network or changes the environment at import affects runs that do not name it.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field

from tunewright import registry

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "accelerate",
    "tensorflow",
    "jax",
    "vllm",
)


@dataclass
class Imported:
    """Side effects of one import."""

    error: str = ""
    heavy: list[str] = field(default_factory=list)  # packages of HEAVY
    connected: list[str] = field(default_factory=list)  # addresses
    # names of variables set, changed or removed
    environment: list[str] = field(default_factory=list)


Imports = dict[tuple[str, str], Imported]  # by (kind, qualified name)


def observe(names: list[tuple[str, str]]) -> Imports:
    """Import plugins, given as (kind, qualified name), in as few interpreters as possible.

    An interpreter imports plugin after plugin, and stops after the first with a side effect; the
    rest get another interpreter.
    """
    seen: Imports = {}
    while waiting := [name for name in names if name not in seen]:
        command = [sys.executable, "-m", __name__, *(word for name in waiting for word in name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        for name, line in zip(waiting, lines, strict=False):
            seen[name] = Imported(**json.loads(line))
        if not lines:  # the import ended the interpreter
            seen[waiting[0]] = Imported(
                error=done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            )
    return seen


def _import(kind: str, name: str, connected: list[str]) -> Imported:
    before = dict(os.environ)
    result = Imported()
    try:
        registry.load(registry.find(kind, name))
    except BaseException as error:
        result.error = str(error) or type(error).__name__
    result.heavy = [package for package in HEAVY if package in sys.modules]
    result.connected = list(connected)
    after = dict(os.environ)
    result.environment = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    return result


def main() -> None:
    connected: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            connected.append(str(arguments[1] if event == "socket.connect" else arguments[0]))

    sys.addaudithook(watch)
    words = sys.argv[1:]
    for kind, name in zip(words[::2], words[1::2], strict=True):
        result = _import(kind, name, connected)
        print(json.dumps(asdict(result)), flush=True)
        if result != Imported():
            break


if __name__ == "__main__":
    main()
