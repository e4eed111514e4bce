"""Folder of an evaluation: its settings, then its results."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError, folder
from tunewright.evaluators import EvaluationResult
from tunewright_hf.predictions.lines import check_settings

__all__ = ["RESULTS_FILE", "Results"]

SETTINGS_FILE, RESULTS_FILE = "settings.json", "results.json"


class Results:
    """Results below a folder. settings: JSON values on which they depend."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.folder, self._settings = path, json.loads(json.dumps(settings))

    def begin(self, *, overwrite: bool) -> EvaluationResult | None:
        """Prepare the folder. Returns the result if it is complete.

        Raises RecipeError if it holds an evaluation with other settings, or something else.
        """
        if overwrite:
            self._remove()
        there = self._read(SETTINGS_FILE)
        if there is None:
            if self.folder.is_dir() and any(self.folder.iterdir()):
                hint = "name another folder: --output"
                problem = "is not empty, and holds no evaluation"
                raise RecipeError(problem, place=str(self.folder), hint=hint)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"cannot be written: {error.strerror}"
                raise RunError(problem, place=str(self.folder)) from error
            self._write(SETTINGS_FILE, self._settings)
            return None
        hint = "give the same ones, another --name, or --overwrite"
        check_settings(there, self._settings, self.folder, hint)
        found = self._read(RESULTS_FILE)
        if found is None:
            return None
        names = ("metrics", "rows", "errors", "parts", "margins", "higher_is_better")
        return EvaluationResult(**{name: found[name] for name in names})

    def finish(self, result: EvaluationResult, name: str) -> None:
        """Write results.json. name: of the run."""
        self._write(RESULTS_FILE, {"run": name, "settings": self._settings, **asdict(result)})

    @staticmethod
    def as_json(result: EvaluationResult) -> dict[str, Any]:
        found: dict[str, Any] = folder.finite(asdict(result))
        return found

    def _remove(self) -> None:
        if self.folder.is_dir() and (self.folder / SETTINGS_FILE).is_file():
            shutil.rmtree(self.folder)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise RunError(f"is damaged: {error}", place=str(path), hint="--overwrite") from error
        return found

    def _write(self, name: str, value: dict[str, Any]) -> None:
        text = json.dumps(folder.finite(value), indent=1, ensure_ascii=False)
        folder.write(self.folder, name, text + "\n")
