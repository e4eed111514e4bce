"""Base class of the adapters whose saved form is PEFT's LoRA. Imports neither torch nor PEFT."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright import RunError
from tunewright.types import AdapterRequest, LoadedModel
from tunewright_hf.models.peft import PeftAdapter
from tunewright_hf.models.peft_fields import (
    DROPOUT,
    FLAG,
    NAMES,
    RANK,
    SCALE,
    TOKENS_BY_MODULE,
    Check,
    by_module,
    is_name,
    one_of,
)

__all__ = ["LoraAdapter"]

_CHANGE_BASE = ("pissa", "olora")  # prefixes of init_lora_weights


class LoraAdapter(PeftAdapter):
    """LoRA and the variants of it that other tools read as LoRA.

    Initialisations that change the base weights (PiSSA, OLoRA) are converted on save.
    """

    peft_type = "LORA"
    trains_new_tokens = True
    config_fields: ClassVar[Mapping[str, Check]] = {
        "r": RANK,
        "lora_alpha": SCALE,
        "lora_dropout": DROPOUT,
        "target_parameters": NAMES,
        "trainable_token_indices": TOKENS_BY_MODULE,
        "bias": one_of("none", "all", "lora_only"),
        "use_rslora": FLAG,
        "use_dora": FLAG,
        "rank_pattern": by_module(RANK),
        "alpha_pattern": by_module(SCALE),
    }

    def check_config(self, found: dict[str, Any], place: str) -> dict[str, Any]:
        init = found.get("init_lora_weights", True)
        if init not in (True, False, "gaussian", "orthogonal", "eva"):
            raise RunError(
                f"belongs to weights that {init if is_name(init) else 'something'} changed",
                place=place,
                hint="save it with PEFT's path_initial_model_for_weight_conversion; tunewright's "
                "own are saved so",
            )
        # both describe the initialisation
        return {k: v for k, v in found.items() if k not in ("init_lora_weights", "eva_config")}

    def adapt(self, request: AdapterRequest) -> LoadedModel:
        loaded = super().adapt(request)
        init = loaded.model.peft_config["default"].init_lora_weights
        if isinstance(init, str) and init.startswith(_CHANGE_BASE):
            from tunewright_hf.models.peft_plain import save_as_plain

            save_as_plain(loaded.model)
        return loaded
