"""Base class of the adapters that PEFT provides.

An adapter is a class with Options and one method that makes its PeftConfig:

    class Vera(PeftAdapter):
        peft_type = "VERA"
        config_fields = {"r": RANK, "vera_dropout": DROPOUT, "projection_prng_key": whole(0, 2**31)}

        class Options(PeftOptions):
            rank: int = Field(256, ge=1, description="Rank of the shared projections.")

        def peft_config(self, request: AdapterRequest) -> Any:
            import peft

            common = self.common(request)
            return peft.VeraConfig(
                r=self.options.rank, target_modules=self.targets(request.loaded), **common
            )

This module imports neither torch nor PEFT, so that a plugin's `__init__` can derive from it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunewright import Adapter, PluginOptions, Problem, hookimpl
from tunewright.events import Notice
from tunewright.types import AdapterRequest, LoadedModel, RunContext
from tunewright_hf.models.peft_fields import Check
from tunewright_hf.models.quantizers import objections_to_layers

if TYPE_CHECKING:
    from tunewright.check import Resolved

__all__ = ["PeftAdapter", "PeftOptions", "PromptAdapter"]


class PeftOptions(PluginOptions):
    """Options of adapters that act on modules of the model."""

    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear",
        description="Names of the modules to adapt, such as q_proj. all-linear: every linear layer "
        "except heads, routers, experts and media towers, and except MLPs that PEFT takes for "
        "experts.",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Names of modules that are not adapted, including everything below them.",
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="Names of further modules that are trained in full and saved with the adapter, "
        "such as embed_tokens.",
    )


class PeftAdapter(Adapter):
    """An adapter of PEFT: injected, restored, merged and saved in PEFT's own format.

    Subclasses set `peft_type` and `config_fields`, and implement `peft_config`.
    """

    #: peft_type of adapter_config.json, such as LORA
    peft_type: ClassVar[str]
    #: fields that an adapter_config.json of this type may set, besides those that all types have
    #: (peft_fields.COMMON). Others are refused unless they are at PEFT's default.
    config_fields: ClassVar[Mapping[str, Check]] = {}
    #: whether it trains where the model's parameters are sharded: tests/e2e/test_fsdp_adapters.py
    can_be_sharded: ClassVar[bool] = True
    #: quantizers whose layers PEFT can adapt by this type; None: all of them
    quantizers: ClassVar[frozenset[str] | None] = None

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        """Refuse accelerators that shard, where it cannot be sharded, and quantizers whose layers
        it cannot adapt. Subclasses add to it."""
        yield from super().objections(recipe)
        if self.quantizers is not None:
            yield from objections_to_layers(recipe, self.quantizers)
        for accelerator in recipe.lists.get("accelerator", []):
            if accelerator.plugin.shards and not self.can_be_sharded:
                yield Problem(
                    self.at,
                    f"PEFT's {self.name} does not work on parameters that "
                    f"{accelerator.entry.name} shards",
                    "set adapter: lora, or train without it",
                )

    def peft_config(self, request: AdapterRequest) -> Any:
        """Return the peft.PeftConfig of a new adapter. `common` and `targets` give its parts."""
        raise NotImplementedError

    def check_config(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        """Return the fields of a saved adapter that are checked one by one and passed on.

        found: the content of adapter_config.json, not yet checked. place: its path. Raises RunError
        for what a single field cannot tell.
        """
        return found

    def candidates(self, loaded: LoadedModel) -> list[str]:
        """Full names of the modules that `targets: all-linear` can mean: the linear layers."""
        from tunewright_hf.models.modules import linear

        return linear(loaded.model, loaded.linear_types)

    def targets(self, loaded: LoadedModel) -> list[str]:
        """Names of the modules that the options target: leaf names such as q_proj if these mean the
        same modules, else full names. Raises RecipeError."""
        from tunewright_hf.models import peft_targets

        return peft_targets.targets(loaded, self.candidates(loaded), self.options)

    def common(self, request: AdapterRequest) -> dict[str, Any]:
        """Arguments that every PeftConfig takes: task_type, inference_mode, modules_to_save."""
        from tunewright_hf.models import peft_model, peft_targets

        return {
            "task_type": peft_model.task_type(request),
            "inference_mode": not request.trainable,
            "modules_to_save": peft_targets.also_trained(
                request.loaded.model, self.options.modules_to_save
            ),
        }

    @hookimpl
    def apply_adapter(self, run: RunContext, request: AdapterRequest) -> LoadedModel:
        """Inject the adapter in place: a new one, or the trained one of `request.adapter_path`."""
        loaded, options = request.loaded, self.options
        if request.adapter_path is None and isinstance(options, PeftOptions):
            from tunewright_hf.models import peft_targets

            def notify(message: str, level: str) -> None:
                run.emit(Notice(message=message, level=level))

            peft_targets.leave_out_unreached(loaded, self.candidates(loaded), options, notify)
        return self.adapt(request)

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        """Apply the adapter; called by apply_adapter. Types with further work extend this."""
        from tunewright_hf.models import peft_model

        loaded = request.loaded
        if request.adapter_path:
            loaded.model = peft_model.restored(self, request)
        else:
            loaded.model = peft_model.fresh(self, request)
        loaded.trained = frozenset(
            name for name, each in loaded.model.named_parameters() if each.requires_grad
        )
        loaded.saves = "adapter"
        return loaded

    def merge(self, loaded: LoadedModel) -> LoadedModel:
        """Add the adapter to the weights and return the plain model.

        A quantized base model is dequantized. Raises RunError if PEFT cannot merge the type, or if
        weights are not finite.
        """
        from tunewright_hf.models import peft_model

        return peft_model.merged(loaded)

    def load_external(self, loaded: LoadedModel, folder: Path) -> LoadedModel:
        """Load a PEFT folder (adapter_config.json, adapter_model.safetensors) that another tool has
        saved, for inference or merging. Raises RunError."""
        return self.adapt(AdapterRequest(loaded, adapter_path=folder, trainable=False))


class PromptAdapter(PeftAdapter):
    """An adapter whose virtual tokens stand before every sequence."""

    #: whether they are keys and values in a cache, which layers cannot be given twice
    uses_cache: ClassVar[bool] = False

    can_be_sharded = False
    deviations: ClassVar[dict[str, str]] = {
        "test_begins_as_the_model": "Virtual tokens are drawn at random, and change what follows.",
        "test_merged": "Virtual tokens are no change of weights.",
    }

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        yield from super().objections(recipe)
        for stage in recipe.stages:
            if getattr(stage.choice.options, "packing", False):
                yield Problem(
                    (*stage.choice.at, "packing"),
                    f"the virtual tokens of {self.name} would stand before the first packed row "
                    "alone",
                    "set packing: false; batching: token_budget wastes little padding",
                )
