"""Auto classes by head."""

from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from tunewright import RecipeError
from tunewright.types import LoadRequest

#: a value head is a score head that does not select the last token
HEADS = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "score": transformers.AutoModelForSequenceClassification,
    "value": transformers.AutoModelForSequenceClassification,
}


def auto_class(request: LoadRequest, config: Any) -> Any:
    """The auto class that builds the requested model: with media towers if `request.media` is set
    or transformers has no class without. Raises RecipeError if there is no such class."""
    media = request.media
    if request.head == "causal_lm":
        # code beside the weights has classes of its own
        known = config.model_type in transformers.CONFIG_MAPPING
        media = media or (known and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        return transformers.AutoModelForMultimodalLM if media else HEADS["causal_lm"]
    if media and config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise RecipeError(
            f"transformers has no class of {config.model_type} with a {request.head} head",
            place="stage",
            hint="family: {media: false} loads the language model alone, for some models",
        )
    return HEADS[request.head]
