"""The contract that plugins stand on, frozen: a change here is a change for every third party.

Hooks may gain arguments in a minor version; a removal follows two minors of warnings. When a change
is meant, write the new text into contract.txt: `python tests/kernel/test_contract.py >
tests/kernel/contract.txt`.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunewright
from tunewright import errors, evaluators, events, inference, launch, rows, tracker, types
from tunewright.kinds import kinds

ROOT = Path(__file__).parents[2]


def printed() -> str:
    lines = ["# kinds: hooks"]
    for kind in kinds().values():
        many = f" (many, in `{kind.key}`)" if kind.many else ""
        lines.append(f"{kind.name}{many}: {', '.join(kind.hooks) or '-'}")
    lines.append("\n# hooks")
    for module in dict.fromkeys(kind.specs for kind in kinds().values()):
        found = importlib.import_module(module)
        for name, hook in inspect.getmembers(found, inspect.isfunction):
            if hasattr(hook, "tunewright_spec"):
                lines.append(f"{name}{signature(hook)}")
    lines.append("\n# dataclasses: fields")
    for module in (types, rows, inference, launch, evaluators, events, errors, tracker):
        for name, found in inspect.getmembers(module, dataclasses.is_dataclass):
            if found.__module__ == module.__name__:
                fields = ", ".join(field.name for field in dataclasses.fields(found))
                lines.append(f"{name}: {fields}")
    lines.append("\n# what plugins may ask of a run")
    lines += members("RunContext", types.RunContext)
    lines.append("\n# an open engine")
    lines += members("InferenceEngine", inference.InferenceEngine)
    lines += members("Ticket", inference.Ticket)
    lines.append("\n# base classes")
    for name in sorted(tunewright.__all__):
        found = getattr(tunewright, name)
        if getattr(found, "__module__", "").startswith("tunewright.plugin"):
            lines += members(name, found)
    lines.append("\n# tunewright.tracker")
    lines += members("Tracker", tracker.Tracker)
    lines.append("\n# importable from tunewright")
    lines.append(", ".join(tunewright.__all__))
    lines.append("\n# public in tunewright-hf")
    for module in public_modules():
        lines.append(f"{module}: {', '.join(importlib.import_module(module).__all__)}")
    return "\n".join(lines) + "\n"


def signature(function: Any) -> str:
    # Python 3.13 calls a path pathlib._local.Path
    return re.sub(r"tunewright\.\w+\.|_local\.|'", "", str(inspect.signature(function)))


def members(name: str, owner: type) -> list[str]:
    """The public members that a class itself declares, methods with their parameters."""
    declared = {**inspect.get_annotations(owner), **vars(owner)}
    lines = []
    for member in declared:
        if member.startswith("_") or member in ("model_config", "model_fields"):
            continue
        found = getattr(owner, member, None)
        is_method = inspect.isfunction(found)
        lines.append(f"{name}.{member}{signature(found) if is_method else ''}")
    return lines or [name]


def public_modules() -> list[str]:
    """The modules of tunewright-hf with `__all__`; everything else there is private."""
    root = Path(importlib.util.find_spec("tunewright_hf").origin).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        if re.search(r"^__all__ = ", file.read_text("utf-8"), re.MULTILINE):
            parts = file.relative_to(root.parent).with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


def test_the_contract_is_what_was_promised():
    assert printed() == (Path(__file__).parent / "contract.txt").read_text("utf-8")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plugins", "list"], ["recipe", "check", "docs/examples/quickstart.yaml"]],
    ids=" ".join,
)
def test_verbs_that_only_look_import_no_heavy_library(arguments):
    code = (
        "import sys, tunewright.cli as cli\n"
        f"sys.argv = ['tunewright', *{arguments}]\n"
        "try:\n    cli.main()\nexcept SystemExit as exit_:\n    assert not exit_.code, exit_.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'numpy', "
        "'matplotlib', 'jinja2'}\n"
        "print('imported:', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported: []"


if __name__ == "__main__":
    sys.stdout.write(printed())
