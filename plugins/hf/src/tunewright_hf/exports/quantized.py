"""Base classes of exporters of quantized checkpoints. Imports neither torch nor transformers."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tunewright import Exporter, PluginOptions, RecipeError, hookimpl
from tunewright.types import ExportRequest, RunContext
from tunewright_hf.models.quantizers import LibraryQuantizer, has_gpu, is_installed

__all__ = ["CalibratedExporter", "QuantizedExporter"]

_PLAIN = ".plain"  # below the export's folder, so that nothing stays behind


class QuantizedExporter(Exporter):
    """Exporter of a checkpoint with quantized weights. The model is written plain first, and the
    library quantizes that folder; both are on the disk for a while."""

    #: the modules that it imports
    libraries: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str] = LibraryQuantizer.remedy
    #: whether its kernels need an NVIDIA GPU
    gpu: ClassVar[bool] = False

    class Options(PluginOptions):
        tolerance: float | None = Field(
            None,
            gt=0,
            description="Largest difference of logits from the run's, as a share of the largest. "
            "Default: by the number of bits.",
        )

    def rounding(self) -> float:
        """The default of the option tolerance."""
        raise NotImplementedError

    def quantize(self, run: RunContext, request: ExportRequest, plain: Path) -> None:
        """Quantize the plain checkpoint in a folder, and write config.json and safetensors to
        request.folder. The run's model is gone from memory. Raises RunError."""
        raise NotImplementedError

    def tolerance(self) -> float:
        return float(self.options.tolerance or self.rounding())

    @hookimpl
    def export_model(self, run: RunContext, request: ExportRequest) -> str:
        from tunewright_hf.models.export import save_merged

        self.check()
        self.prepare(run, request)
        plain = request.folder / _PLAIN
        save_merged(run, request, plain)
        request.loaded.model.to("meta")  # its memory is for the copy that is quantized
        request.say(f"quantizing with {self.name}")
        self.quantize(run, request, plain)
        for path in plain.iterdir():  # tokenizer, template, generation settings
            if not (request.folder / path.name).exists() and ".safetensors" not in path.name:
                path.rename(request.folder / path.name)
        shutil.rmtree(plain)
        return "transformers and vLLM load the folder by its path"

    def check(self) -> None:
        """Raise RecipeError where a library or a GPU is missing."""
        for library in self.libraries:
            if not is_installed(library):
                problem = f"{self.name} needs {library}, which is not installed here"
                raise RecipeError(problem, place="command line: --to", hint=self.remedy)
        if self.gpu and not has_gpu():
            problem = f"{self.name} quantizes on an NVIDIA GPU, and there is none here"
            hint = "--to gptq quantizes on the CPU too"
            raise RecipeError(problem, place="command line: --to", hint=hint)

    def prepare(self, run: RunContext, request: ExportRequest) -> None:
        """Do what needs the run's model, before it is merged."""

    def reload(self, run: RunContext, request: ExportRequest) -> Any:
        from tunewright_hf.models.export import load_checkpoint

        return load_checkpoint(run, request, **self.loading())

    def loading(self) -> dict[str, Any]:
        """Arguments of from_pretrained for `reload`."""
        return {}


class CalibratedExporter(QuantizedExporter):
    """Exporter that rounds weights so that outputs change least on calibration data."""

    class Options(QuantizedExporter.Options):
        data: str | dict[str, Any] | None = Field(
            None,
            description="Calibration data: a file, or an item as in a recipe's `data`, such as "
            "{path: rows.jsonl, format: alpaca}. Relative to the current folder. Default: the "
            "data that the run was trained on.",
        )
        samples: int = Field(128, ge=1, description="Examples of the calibration data.")
        max_length: int = Field(2048, ge=2, description="Tokens that are used of each.")

    def __init__(self, options: Any, name: str = "") -> None:
        super().__init__(options, name)
        self.rows: Sequence[list[int]] = ()  # token ids, set by prepare

    def prepare(self, run: RunContext, request: ExportRequest) -> None:
        from tunewright_hf.batching.calibration import sequences

        asked = run.data_request(request.loaded, len(run.recipe.stages) - 1)
        if self.options.data is not None:
            written = self.options.data
            fields = {"path": written} if isinstance(written, str) else written
            try:
                asked.entries = [run.plugin("dataset").Entry(**fields)]
            except ValueError as error:
                reason = " ".join(str(error).split())[:300]
                raise RecipeError(f"is no source: {reason}", place="command line: data") from error
            asked.root = Path.cwd()
        asked.eval_entries = {}
        if not asked.entries:
            problem, hint = "this model has no data of its own", "data=FILE"
            raise RecipeError(problem, place="command line: data", hint=hint)
        if self.options.data is not None and asked.rows != "text":
            asked.rows = "messages"
        data = run.call("dataset", "build_dataset", asked)
        found = sequences(data, self.options.samples, asked.seed)
        self.rows = [ids[: self.options.max_length] for ids, _ in found if len(ids) > 1]
        if not self.rows:
            raise RecipeError("has no example to calibrate with", place="command line: data")
        count = sum(len(row) for row in self.rows)
        request.say(f"calibration: {count:,} tokens of {len(self.rows):,} examples")
