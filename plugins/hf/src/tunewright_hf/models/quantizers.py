"""Base classes of quantizers. Imports neither torch nor transformers."""

import importlib.util
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunewright import Problem, Quantizer, RecipeError, hookimpl, registry
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models import prequantized

if TYPE_CHECKING:
    from tunewright.check import Resolved

__all__ = [
    "AfterLoading",
    "CheckpointQuantizer",
    "DequantizedCheckpoint",
    "LibraryQuantizer",
    "StoredQuantization",
    "objections_to_checkpoint",
    "objections_to_layers",
]


class LibraryQuantizer(Quantizer):
    """Quantizer on a library that comes with it, or whose kernels need a GPU."""

    #: the modules that it imports
    libraries: ClassVar[tuple[str, ...]] = ()
    #: how to install them
    remedy: ClassVar[str] = (
        "tunewright env create quantizers has the tested versions of the quantizers' libraries"
    )
    #: whether it reads checkpoints that its library has quantized and saved
    reads_checkpoints: ClassVar[bool] = True

    def needs_gpu(self) -> str:
        """The options that need an NVIDIA GPU, in words; "" if none does."""
        return ""

    def objections(self, recipe: "Resolved") -> Iterator[Problem]:
        yield from super().objections(recipe)
        yield from self.missing(self.at)
        if (what := self.needs_gpu()) and not (has_gpu() and on_gpu(recipe)):
            yield Problem(
                self.at,
                f"{what} needs an NVIDIA GPU, and there is none here",
                "on the CPU bitsandbytes, hqq, quanto and torchao quantize",
            )
        stored = prequantized.of_folder(recipe.recipe.model)
        if stored is not None:
            yield from self.objections_to(stored)

    def missing(self, at: tuple[str | int, ...]) -> Iterator[Problem]:
        """Libraries that are not installed. at: the field of the recipe that needs them."""
        for library in self.libraries:
            if not is_installed(library):
                problem = f"{self.name} needs {library}, which is not installed here"
                yield Problem(at, problem, self.remedy)

    def objections_to(self, stored: dict[str, Any]) -> Iterator[Problem]:
        """Problems with a checkpoint that is quantized already.

        stored: the quantization_config of its config.json.
        """
        method = prequantized.method(stored)
        if method != self.method:
            yield Problem(
                self.at,
                f"the model's weights are quantized by {method} already, not by {self.name}",
                "take the quantizer out of the recipe, or name the unquantized model",
            )
            return
        for reason in self.unreadable(stored):
            yield Problem(("model",), f"its weights {reason}", "name the unquantized model")

    def unreadable(self, stored: dict[str, Any]) -> Iterator[str]:
        """Reasons why it cannot read a checkpoint of its own method, each a predicate of "weights".

        stored: the quantization_config of its config.json, of any content.
        """
        if not self.reads_checkpoints:
            yield f"are quantized already, and {self.name} quantizes plain models only"

    def check_libraries(self) -> None:
        """Raise RecipeError where a library is missing, which `recipe check` tells too."""
        for problem in self.missing(()):
            raise RecipeError(problem.message, place="quantizer", hint=problem.hint)

    @property
    def method(self) -> str:
        """quant_method of a checkpoint that this quantizer fits."""
        return self.name.replace("_", "-")


@dataclass(frozen=True)
class AfterLoading:
    """LoadRequest.quantization of a quantizer that has all to do in finish_load."""

    method: str


@dataclass(frozen=True)
class StoredQuantization:
    """LoadRequest.quantization for checkpoints that are quantized already."""

    method: str  # quant_method of their config.json
    quantizer: str  # name of the plugin that asks for them
    expected: dict[str, Any]  # what quantization_config has to say
    #: reasons why it cannot read a checkpoint with this quantization_config
    unreadable: Callable[[dict[str, Any]], Iterator[str]]
    loading: dict[str, Any]  # laid over quantization_config
    #: quantizes the plain checkpoint in a folder, for tiny twins
    write: Callable[[Path], None]
    #: changes the layers that were read, before a few tokens are tried on them
    adapt_layers: Callable[[LoadedModel], None]


class CheckpointQuantizer(LibraryQuantizer):
    """Quantizer that reads quantized checkpoints, and makes none of a plain model. The recipe need
    not name it: a quantized checkpoint is recognised."""

    def expected(self) -> dict[str, Any]:
        """The options that the checkpoint's quantization_config has to agree with."""
        return {}

    def loading(self) -> dict[str, Any]:
        """Entries of quantization_config that say how it is loaded, such as the kernel."""
        return {}

    def write_tiny(self, folder: Path) -> None:
        """Quantize the plain checkpoint in `folder` by rounding, for `model: tiny`."""
        raise NotImplementedError

    def adapt_layers(self, loaded: LoadedModel) -> None:
        """Change the layers that the library has made, in place, before they compute anything."""

    def objections_to(self, stored: dict[str, Any]) -> Iterator[Problem]:
        yield from super().objections_to(stored)
        if prequantized.method(stored) == self.method:
            for problem in prequantized.differences(self.expected(), stored):
                yield Problem(self.at, problem, "leave the option out: the checkpoint says it")

    @hookimpl
    def prepare_load(self, request: LoadRequest) -> bool:
        self.check_libraries()
        request.quantization = StoredQuantization(
            method=self.method,
            quantizer=self.name,
            expected=self.expected(),
            unreadable=self.unreadable,
            loading=self.loading(),
            write=self.write_tiny,
            adapt_layers=self.adapt_layers,
        )
        return True

    @hookimpl
    def finish_load(self, loaded: LoadedModel) -> LoadedModel:
        return loaded


class DequantizedCheckpoint(CheckpointQuantizer):
    """Reads quantized checkpoints into plain weights, in the model's dtype."""

    deviations: ClassVar[dict[str, str]] = {
        "test_says_what_is_quantized": "Weights are dequantized while they are loaded."
    }

    def weight_bytes(self, shape: tuple[int, ...], dtype: str) -> float:
        return math.prod(shape) * (4 if dtype == "float32" else 2)

    def loading(self) -> dict[str, Any]:
        return {"dequantize": True}


def is_installed(module: str) -> bool:
    """Whether a module can be imported. Imports nothing but its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a parent is missing
        return False


def has_gpu() -> bool:
    """Whether an NVIDIA driver is here: told without importing torch."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def on_gpu(recipe: "Resolved") -> bool:
    """Whether the recipe lets the model be on a GPU."""
    device = str(getattr(recipe.options("family"), "device", "auto"))
    return device == "auto" or device.startswith("cuda")


def objections_to_checkpoint(recipe: "Resolved") -> Iterator[Problem]:
    """Problems with a checkpoint in a folder whose weights are quantized, where the recipe names no
    quantizer: one that it names objects itself."""
    adapter, found = recipe.choices.get("adapter"), prequantized.of_folder(recipe.recipe.model)
    if found is None or recipe.plugin("quantizer") is not None:
        return
    if adapter is not None and getattr(adapter.plugin, "trains_base_weights", False):
        yield Problem(
            adapter.at,
            f"the model's weights are quantized ({prequantized.method(found)}) and cannot be "
            f"trained, and {adapter.entry.name} trains them",
            "train an adapter, such as lora, or name the unquantized model",
        )
    yield from _unreadable(prequantized.plugin_name(found), found)


def _unreadable(name: str, stored: dict[str, Any]) -> Iterator[Problem]:
    """Problems of reading weights that quantizer `name` reads: nothing installed, no library, or
    not such weights."""
    installed = {entry.name: entry for entry in registry.entries("quantizer")}
    if name not in installed:
        yield Problem(
            ("model",),
            f"its weights are quantized by {name!r}, which no installed plugin reads",
            f"there is: {', '.join(sorted(installed))}",
        )
        return
    plugin = registry.load(installed[name])
    if issubclass(plugin, LibraryQuantizer):
        reader = plugin(plugin.Options(), name)
        yield from reader.missing(("model",))
        for reason in reader.unreadable(stored):
            yield Problem(("model",), f"its weights {reason}", "name the unquantized model")


def objections_to_layers(recipe: "Resolved", known: frozenset[str]) -> Iterator[Problem]:
    """Problem of an adapter that can adapt the layers of some quantizers only.

    known: their names. Weights that are dequantized while they are loaded are those of any model.
    """
    adapter, choice = recipe.choices["adapter"], recipe.choices.get("quantizer")
    stored = prequantized.of_folder(recipe.recipe.model)
    name = choice.entry.name if choice else prequantized.plugin_name(stored) if stored else None
    if name is None or name in known:
        return
    entry = next((each for each in registry.entries("quantizer") if each.name == name), None)
    if entry is not None and not issubclass(registry.load(entry), DequantizedCheckpoint):
        yield Problem(
            adapter.at,
            f"{adapter.entry.name} cannot adapt layers that {name} has quantized",
            f"set adapter: lora, or quantize by {' or '.join(sorted(known))}",
        )
