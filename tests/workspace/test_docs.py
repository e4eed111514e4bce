"""The generated pages say what the source says."""

import importlib.util

from workspace.members import ROOT

from tunewright import hookspecs, registry


def make_docs():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(capsys) -> None:
    assert make_docs().main(["--check"]) == 0, capsys.readouterr().out


def test_every_hook_stands_in_the_reference_with_its_kind() -> None:
    page = (ROOT / "docs/reference/hooks.md").read_text("utf-8")
    for kind, hooks in registry.KINDS.items():
        for hook in hooks:
            section = page.partition(f"### {hook}\n")[2].partition("\n### ")[0]
            assert f"Kind: {kind}." in section
            assert hook in vars(hookspecs)
