"""Scaled rotary positions in a transformers config."""

import math
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError

if TYPE_CHECKING:
    from tunewright_rope_scaling import RopeScaling

_AT = "accelerators"


class Scaling:
    """Edits one config. longest: training.max_length, tokens."""

    def __init__(self, options: "RopeScaling.Options", longest: int) -> None:
        self.options, self.longest = options, longest
        self.positions = 0  # of the scaled model
        self.summary = ""

    def edit(self, config: Any) -> None:
        """Set rope_parameters and max_position_embeddings. Raises RecipeError if the model has no
        rotary positions, or others than could be scaled so."""
        text = config.get_text_config()
        rotary, layer_type = self._rotary(text)
        kind, known = self.options.rope_type, rotary.get("rope_type") or "default"
        if known == kind and self.options.factor in (None, rotary.get("factor")):
            self.positions = text.max_position_embeddings
            self.summary = f"rotary positions are {kind} in the model's config already"
            return
        if known != "default":
            raise RecipeError(
                f"the model's rotary positions are {known} already, factor {rotary.get('factor')}",
                place=_AT,
                hint="take rope_scaling out of the recipe, or a model with positions as pretrained",
            )
        original = self._original(text)
        factor = self.options.factor or math.ceil(self.longest / original)
        self.positions = int(original * factor)
        self._check(factor, original, text, rotary)
        scaled: dict[str, Any] = {
            key: rotary[key] for key in ("rope_theta", "partial_rotary_factor") if key in rotary
        }
        scaled |= {"rope_type": kind, "factor": float(factor), **self._more(original)}
        text.rope_parameters = (
            scaled if layer_type is None else {**text.rope_parameters, layer_type: scaled}
        )
        if kind == "dynamic":
            # transformers scales beyond max_position_embeddings: they stay those of pretraining
            text.max_position_embeddings = original
        else:
            text.max_position_embeddings = self.positions
        self.summary = f"rotary positions: {kind}, {original} × {factor:g} = {self.positions}"

    def _rotary(self, text: Any) -> tuple[dict[str, Any], str | None]:
        """The parameters to scale, and the layer type that has them; None: all layers have."""
        rotary = getattr(text, "rope_parameters", None)  # not all configs have it
        if isinstance(rotary, dict):
            if isinstance(nested := rotary.get("full_attention"), dict):
                return nested, "full_attention"
            if rotary.get("rope_theta") is not None:
                return rotary, None
        raise RecipeError(
            f"a {text.model_type} model has no rotary positions that could be scaled",
            place=_AT,
            hint="take rope_scaling out of the recipe",
        )

    def _original(self, text: Any) -> int:
        return int(
            self.options.original_max_position_embeddings
            # Phi-3 keeps them beside the parameters
            or getattr(text, "original_max_position_embeddings", None)
            or text.max_position_embeddings
        )

    def _check(self, factor: float, original: int, text: Any, rotary: dict[str, Any]) -> None:
        if factor <= 1:
            raise RecipeError(
                f"training.max_length {self.longest} fits the model's {original} positions: "
                "nothing is to be scaled",
                place=_AT,
                hint="set factor, or take rope_scaling out of the recipe",
            )
        if self.positions < self.longest:
            raise RecipeError(
                f"{original} positions × {factor:g} are fewer than training.max_length "
                f"{self.longest}",
                place=_AT,
                hint=f"set factor: {math.ceil(self.longest / original)}",
            )
        if self.options.rope_type != "longrope":
            return
        # configs without head_dim derive it
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        count = int(size * rotary.get("partial_rotary_factor", 1.0)) // 2
        for name in ("short_factor", "long_factor"):
            found = len(getattr(self.options, name))
            if found != count:
                raise RecipeError(
                    f"{name} has {found} numbers, and heads of this model have {count} frequencies",
                    place=_AT,
                )

    def _more(self, original: int) -> dict[str, Any]:
        """The method's own fields."""
        from tunewright_rope_scaling import FIELDS

        kind = self.options.rope_type
        given = {name: getattr(self.options, name) for name in FIELDS[kind]}
        found: dict[str, Any] = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        found = found if kind == "llama3" else {}
        if kind in ("yarn", "llama3", "longrope"):
            found["original_max_position_embeddings"] = original
        return found | {name: value for name, value in given.items() if value is not None}
