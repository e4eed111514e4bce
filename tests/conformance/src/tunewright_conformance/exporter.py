"""Tests of every exporter: what it writes says what the model says, and nothing else is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tunewright.check import resolve
from tunewright.registry import Entry, load
from tunewright.run import Run
from tunewright.types import ExportRequest, LoadedModel
from tunewright_conformance.adapter import logits, train
from tunewright_conformance.bench import a_model
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import recipe


class TestExporter(Suite):
    kinds = ("exporter",)

    #: adapter of the model that is exported
    adapter: str = "full"

    @pytest.fixture
    def run(self, tmp_path: Path) -> Run:
        """A run on a checkpoint in a folder, as users have them."""
        from tunewright_hf.models.export import save_result

        base = tmp_path / "base"
        made = a_model(tmp_path)
        save_result(made, base)
        sections: Mapping[str, Any] = {
            "model": str(base),
            "adapter": self.adapter,
            "template": made.template,
        }
        return Run(resolve(recipe({"name": "sft"}, "messages", tmp_path / "work", 4, sections)))

    @pytest.fixture
    def trained(self, run: Run) -> LoadedModel:
        loaded = run.load()
        train(loaded)
        loaded.model.eval()
        return loaded

    def test_says_the_same(
        self,
        entry: Entry,
        options: dict[str, Any],
        run: Run,
        trained: LoadedModel,
        tmp_path: Path,
    ) -> None:
        """Read by `reload`, the export gives the model's logits, within `tolerance()` of the
        largest. Its folder holds files, it has said in a line how they are loaded, and nothing
        else was written."""
        expected = logits(trained)
        before = set(tmp_path.rglob("*"))
        folder = tmp_path / "to"
        folder.mkdir()
        said: list[str] = []
        request = ExportRequest(trained, folder, run.recipe.model, said.append)
        exporter = load(entry)(load(entry).Options(**options), entry.name)
        how = exporter.export_model(run=run, request=request)
        assert isinstance(how, str) and how and "\n" not in how
        assert any(path.is_file() for path in folder.rglob("*")), "nothing was written"
        others = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
        assert others == before, "files beside the folder were written"
        model = exporter.reload(run, request)
        if model is None:
            pytest.skip("no library here reads the format")
        found = logits(LoadedModel(model, trained.tokenizer))
        worst = float((found.float() - expected).abs().max() / expected.abs().max())
        assert worst <= exporter.tolerance()
