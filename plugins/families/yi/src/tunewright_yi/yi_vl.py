"""Yi-VL: LLaVA with layer norms in its projector.

The checkpoints in transformers' layout say `model_type: llava`, whose own class has no place for
the norms, so the family reads their config as `YiVLConfig`.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMultimodalLM, LlavaConfig
from transformers.activations import ACT2FN
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration, LlavaModel


class YiVLConfig(LlavaConfig):
    """LlavaConfig of another class, by which the model's class is found."""


class YiVLProjector(nn.Module):
    """Two linear layers, each with a norm: (…, vision size) to (…, text size). Names are those of
    the checkpoints' tensors."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, size)
        self.linear_2 = nn.LayerNorm(size)
        self.linear_3 = nn.Linear(size, size)
        self.linear_4 = nn.LayerNorm(size)
        self.act = ACT2FN[config.projector_hidden_act]

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.act(self.linear_2(self.linear_1(features)))
        projected: Tensor = self.linear_4(self.linear_3(hidden))
        return projected


class YiVLModel(LlavaModel):  # type: ignore[misc, no-untyped-call]
    config_class = YiVLConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.multi_modal_projector = YiVLProjector(config)
        self.post_init()


class YiVLForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    config_class = YiVLConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = YiVLModel(config)
        self.post_init()


AutoModel.register(YiVLConfig, YiVLModel, exist_ok=True)
AutoModelForMultimodalLM.register(YiVLConfig, YiVLForConditionalGeneration, exist_ok=True)
# checkpoints name their tensors as those of LLaVA-1.5 do
for _own, _of in (
    (YiVLForConditionalGeneration, "llava"),
    (YiVLModel, LlavaModel.__name__),
):
    register_checkpoint_conversion_mapping(
        _own.__name__, get_checkpoint_conversion_mapping(_of), overwrite=True
    )
