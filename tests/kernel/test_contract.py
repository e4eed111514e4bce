"""The contract that plugins stand on, frozen: a change here is a change for every third party.

Hooks may gain arguments in a minor version; a removal follows two minors of warnings. When a change
is meant, write the new text into contract.txt: `python tests/kernel/test_contract.py >
tests/kernel/contract.txt`.
"""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright import events, hookspecs, registry, types

ROOT = Path(__file__).parents[2]


def printed() -> str:
    lines = [f"{kind}: {', '.join(hooks) or '-'}" for kind, hooks in registry.KINDS.items()]
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if hook.__module__ == hookspecs.__name__:
            arguments = ", ".join(
                f"{p.name}: {p.annotation}" for p in inspect.signature(hook).parameters.values()
            )
            lines.append(f"{name}({arguments}) -> {hook.__annotations__['return']}")
    for module in (types, events):
        for name, found in inspect.getmembers(module, dataclasses.is_dataclass):
            if found.__module__ == module.__name__:
                lines.append(
                    f"{name}: {', '.join(field.name for field in dataclasses.fields(found))}"
                )
    return "\n".join(lines) + "\n"


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
