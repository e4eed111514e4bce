"""torch.compile of the trained model."""

import os
import shutil
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Literal

from tunewright import PluginOptions, Problem, hookimpl
from tunewright.plugin import Accelerator
from tunewright.types import RunContext, StageResult, TrainRequest

if TYPE_CHECKING:
    from tunewright.check import Resolved

#: compilers that inductor looks for, or is told of
_COMPILERS = ("g++", "clang++", "cl")


class Compile(Accelerator):
    """Compiles the trained model's layers by torch.compile (Ansel et al. 2024,
    doi:10.1145/3620665.3640366), which makes steps faster and the first ones slower: minutes on a
    CPU. Losses differ by rounding. Evaluation and sampling run the model as it is.
    """

    planned = False

    class Options(PluginOptions):
        backend: Literal["inductor", "aot_eager", "eager"] = "inductor"
        """Compiler backend. inductor: generates code, and needs a C++ compiler. aot_eager, eager:
        without a compiler, to find out what goes wrong."""
        mode: (
            Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
            | None
        ) = None
        """torch.compile's mode, with inductor. Default: default."""
        dynamic: bool | None = None
        """Shapes. true: one code for all. false: code for each length of a batch. Default: torch
        decides when a length changes."""
        per_layer: bool = True
        """Compile each layer of the model alone: all share the code, which takes far less time to
        compile. false: all layers, with the embeddings, as one."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        if self.options.mode is not None and self.options.backend != "inductor":
            yield Problem(
                (*self.at, "mode"),
                f"is no option of backend {self.options.backend}",
                "leave it out",
            )
        known = os.environ.get("CXX") or next(filter(shutil.which, _COMPILERS), None)
        if self.options.backend == "inductor" and not known:
            yield Problem(
                self.at,
                f"finds no C++ compiler ({', '.join(_COMPILERS)}, or the one that CXX names)",
                "install one, such as apt install g++, or take compile out of the recipe",
            )

    @hookimpl(wrapper=True)
    def train_stage(
        self, run: RunContext, request: TrainRequest
    ) -> Generator[None, StageResult, StageResult]:
        from tunewright_compile.compiled import compiled, parts

        with compiled(parts(request.loaded.model, self.options.per_layer), self.options):
            return (yield)
