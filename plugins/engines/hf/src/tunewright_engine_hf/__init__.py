"""Inference engine: the model in this process."""

from pydantic import Field

from tunewright import Engine, PluginOptions, hookimpl
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.types import RunContext


class HfEngine(Engine):
    """Generates with the model in this process, many answers at once.

    Needs no further packages. An answer depends on its request only.
    """

    class Options(PluginOptions):
        prefill_tokens: int = Field(2048, ge=1, json_schema_extra={"tier": "advanced"})
        """Prompt tokens that are computed between two steps of the answers that are under way.
        Smaller: a long prompt delays the others less."""
        reuse_tokens: int = Field(16384, ge=0, json_schema_extra={"tier": "advanced"})
        """Tokens of finished answers whose keys and values are kept, for prompts that begin alike.
        0: none."""

    @hookimpl
    def open_engine(self, run: RunContext, request: EngineRequest) -> InferenceEngine:
        from tunewright_hf.models.libraries import check_torchvision

        check_torchvision()
        from tunewright_engine_hf.opened import OpenedEngine

        return OpenedEngine(run, request, self.options)
