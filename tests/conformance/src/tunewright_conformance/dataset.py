"""Tests for datasets: every record is read, or dropped with a reason, deterministically.

goldens/NAME.json describes the data: `data`, sources of a recipe whose paths start in goldens/, and
their number of `rows`; `bad`, sources with unusable rows, their number `bad_rows` and the
`bad_lines`, from 1; and `skip`, options that skip such rows.
"""

from pathlib import Path
from typing import Any

import pytest

from tunewright import RowError, registry
from tunewright.check import resolve
from tunewright.context import Run
from tunewright.descriptions import described
from tunewright.registry import Entry
from tunewright.types import Data
from tunewright_conformance import goldens
from tunewright_conformance.bench import a_family, family_options, on_bench
from tunewright_conformance.suite import Suite


class TestDataset(Suite):
    kinds = ("dataset",)

    @pytest.fixture
    def golden(self, entry: Entry) -> dict[str, Any]:
        found = goldens.golden(entry)
        assert found, f"say in goldens/{entry.name}.json of the plugin's package what it reads"
        return found

    def test_declares_its_entries(self, entry: Entry) -> None:
        """`Entry` describes an item of the recipe's data: every field is documented, unknown ones
        are refused."""
        fields: Any = registry.load(entry).Entry  # type: ignore[attr-defined]
        assert fields.model_config.get("extra") == "forbid"
        assert fields.model_fields.keys() - described(fields).keys() == set()

    def test_rows(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """All rows are there, not longer than allowed, with labels that are the ids or -100."""
        data = build(entry, golden["data"], tmp_path)
        assert data.rows_read == golden["rows"] == len(data.train) + sum(data.dropped.values())
        for row in data.train:
            assert 0 < len(row["input_ids"]) == len(row["labels"]) <= 512
            pairs = zip(row["input_ids"], row["labels"], strict=True)
            assert all(label in (-100, token) for token, label in pairs)
            assert any(label != -100 for label in row["labels"]), "nothing of this row is trained"

    def test_long_rows(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """Rows longer than max_length are truncated, or dropped and counted with a reason."""
        data = build(entry, golden["data"], tmp_path, max_length=48)
        assert data.rows_read == golden["rows"] == len(data.train) + sum(data.dropped.values())
        assert all(len(row["input_ids"]) <= 48 for row in data.train)
        assert all(data.dropped), "rows are dropped without a reason"

    def test_same_again(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """Two builds give the same rows, order and fingerprint."""
        one, again = (build(entry, golden["data"], tmp_path) for _ in range(2))
        assert list(one.train) == list(again.train)
        assert one.fingerprint == again.fingerprint

    def test_fingerprint(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """Another length, other data or another template change the fingerprint: a resumed run must
        notice."""
        prints = [
            build(entry, golden["data"], tmp_path).fingerprint,
            build(entry, golden["data"], tmp_path, max_length=48).fingerprint,
            build(entry, golden["data"][:1], tmp_path).fingerprint,
            build(entry, golden["data"], tmp_path, template=another_template()).fingerprint,
        ]
        assert all(prints)
        assert len(set(prints)) == len(prints)

    def test_limit(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """With a limit, as in --smoke, at most so many records of each source are read."""
        assert build(entry, golden["data"], tmp_path, limit=1).rows_read == len(golden["data"])

    def test_bad_rows_are_errors(
        self, entry: Entry, golden: dict[str, Any], tmp_path: Path
    ) -> None:
        """The first unusable row is an error with its file and line."""
        with pytest.raises(RowError) as error:
            build(entry, golden["bad"], tmp_path)
        assert error.value.place.endswith(f":{golden['bad_lines'][0]}")
        assert error.value.problem

    def test_bad_rows_are_left_out(
        self, entry: Entry, golden: dict[str, Any], tmp_path: Path
    ) -> None:
        """If requested, unusable rows are skipped and counted."""
        data = build(entry, golden["bad"], tmp_path, golden["skip"])
        assert data.rows_read == golden["bad_rows"]
        assert sum(data.dropped.values()) == len(golden["bad_lines"])
        assert len(data.train) == golden["bad_rows"] - len(golden["bad_lines"])

    def test_evaluation(self, entry: Entry, golden: dict[str, Any], tmp_path: Path) -> None:
        """Evaluation data is read in the same way, by name, and never trained on."""
        data = build(entry, golden["data"][:1], tmp_path, evals={"held out": golden["data"][1:]})
        assert data.evals.keys() == {"held out"}
        whole = build(entry, golden["data"], tmp_path)
        assert [*data.train["input_ids"], *data.evals["held out"]["input_ids"]] == [
            *whole.train["input_ids"]
        ]


def another_template() -> str:
    """The last installed template without control tokens, so that every tokenizer fits."""
    for entry in reversed(registry.entries("template")):
        info = on_bench(entry).plugin.info
        if not (info.control or info.stop):
            return entry.name
    pytest.skip(
        "no template without tokens of its own is installed, such as those of tunewright-templates"
    )


def build(
    entry: Entry,
    data: list[dict[str, Any]],
    folder: Path,
    options: dict[str, Any] | None = None,
    *,
    evals: dict[str, Any] | None = None,
    template: str | None = None,
    limit: int | None = None,
    max_length: int = 512,
) -> Data:
    """Build data from sources, as the kernel does for a stage on messages."""
    family = a_family()
    recipe = {
        "model": "tiny",
        "family": {"name": family.name, **family_options(family)},
        "dataset": {"name": entry.name, **(options or {})},
        "data": data,
        "eval_data": evals or {},
        "stage": messages_stage(),
        "training": {"max_length": max_length},
        "loggers": [],
        "output": str(folder),
        "data_root": str(goldens.folder(entry)),
    }
    run = Run(resolve(recipe | ({"template": template} if template else {})))
    found: Data = run.call(
        "dataset", "build_dataset", run.data_request(run.load(weights="none"), limit=limit)
    )
    return found


def messages_stage() -> str:
    """An installed stage that trains on messages, and needs no options."""
    for entry in registry.entries("stage"):
        stage = registry.load(entry)
        if stage.rows != "messages":  # type: ignore[attr-defined]
            continue
        if not any(field.is_required() for field in stage.Options.model_fields.values()):
            return entry.name
    pytest.skip("no stage on messages is installed, such as tunewright-sft")
