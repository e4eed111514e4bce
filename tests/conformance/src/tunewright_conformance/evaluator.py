"""Tests of every evaluator: finite metrics, the same again, and nothing written elsewhere."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tunewright.check import resolve
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.registry import Entry, load
from tunewright.run import Run
from tunewright.types import RunContext
from tunewright_conformance.suite import Suite
from tunewright_conformance.trial import recipe, rows_of

ROWS = 3


class TestEvaluator(Suite):
    kinds = ("evaluator",)

    @pytest.fixture
    def run(self, tmp_path: Path) -> Run:
        """A run of a tiny model, with an evaluation set."""
        data = tmp_path / "eval.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows_of("messages", ROWS)))
        sections = {"eval_data": {"held": [{"path": str(data)}]}}
        return Run(resolve(recipe({"name": "sft"}, "messages", tmp_path / "work", 4, sections)))

    def test_measures(
        self, entry: Entry, options: dict[str, Any], run: Run, tmp_path: Path
    ) -> None:
        """Metrics are finite numbers over some rows, the same in a second evaluation. Lines of JSON
        and others are written into the request's folder, and nowhere else."""
        one = self._evaluated(entry, options, run, tmp_path / "one")
        two = self._evaluated(entry, options, run, tmp_path / "two")
        assert one.metrics
        assert all(math.isfinite(value) for value in one.metrics.values())
        assert one.rows > 0
        assert one.errors == 0
        assert two.metrics == one.metrics
        for path in (tmp_path / "one").glob("*.jsonl"):
            for line in path.read_text("utf-8").splitlines():
                assert isinstance(json.loads(line), dict)

    def _evaluated(
        self, entry: Entry, options: dict[str, Any], run: Run, folder: Path
    ) -> EvaluationResult:
        folder.mkdir()
        before = {path for path in folder.parent.rglob("*") if not path.is_relative_to(folder)}
        plugin = load(entry)(load(entry).Options(**options), entry.name)

        def opened(each: RunContext) -> InferenceEngine:
            found: InferenceEngine = each.call("engine", "open_engine", EngineRequest())
            return found

        other = run if plugin.runs == 2 else None
        request = EvaluationRequest(folder, opened, lambda _: None, lambda *_: None, other)
        result: EvaluationResult = plugin.evaluate_model(run=run, request=request)
        written = {path for path in folder.parent.rglob("*") if not path.is_relative_to(folder)}
        assert written == before, "files beside the folder were written"
        return result
