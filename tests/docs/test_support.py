"""The page of what works with what: each quantizer and number of bits, and each pair of optimizer,
adapter and accelerator, of which none fails in a way that `recipe check` does not find."""

from support_page import rows
from support_runs import pairs
from support_tables import cells

from tunewright.registry import entries, load


def test_every_quantizer_has_a_row() -> None:
    listed = {row["quantizer"] for row in rows()}
    assert listed == {entry.name for entry in entries("quantizer")}
    assert {2, 3, 4, 5, 6, 8} <= {row["bits"] for row in rows()}


def test_options_are_those_of_the_quantizer() -> None:
    plugins = {entry.name: load(entry) for entry in entries("quantizer")}
    for row in rows():
        plugins[row["quantizer"]].Options.model_validate(row.get("options", {}))


def test_cells_are_those_of_installed_plugins() -> None:
    assert set(cells()) <= set(pairs()), "run scripts/support_runs.py --check"


def test_what_does_not_run_is_refused_by_the_check() -> None:
    failing = {key: cell["reason"] for key, cell in cells().items() if cell["result"] == "fails"}
    assert failing == {}
