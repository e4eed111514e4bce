"""Auto classes by head."""

from typing import Any

import transformers
from transformers.modeling_layers import GenericForSequenceClassification
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
    "classes": transformers.AutoModelForSequenceClassification,
    "steps": transformers.AutoModelForTokenClassification,
}


def set_outputs(config: Any, request: LoadRequest) -> None:
    """Set the number of outputs of a head that is no language model's, and their names. A
    classifier that no stage has trained keeps its own."""
    if request.head in ("classes", "steps"):
        if not request.labels:
            return
        config.id2label = dict(enumerate(request.labels))
        config.label2id = {name: number for number, name in enumerate(request.labels)}
        if request.head == "steps":
            config.classifier_dropout = 0.0  # transformers' classes for tokens take 0.1
            _spare_head(request.quantization)
    elif request.head != "causal_lm":
        config.num_labels = 1


def _spare_head(quantization: Any) -> None:
    """Have a quantization config of transformers leave out the head. Without it, transformers
    leaves out the last parameter, which here is the head's bias."""
    for name in ("llm_int8_skip_modules", "modules_to_not_convert"):
        if hasattr(quantization, name) and not getattr(quantization, name):
            setattr(quantization, name, ["score"])


def auto_class(request: LoadRequest, config: Any) -> Any:
    """The auto class that builds the requested model: with media towers if `request.media` is set
    or transformers has no class without. Raises RecipeError if there is no such class."""
    media = request.media
    if request.head == "causal_lm":
        if config.model_type not in transformers.CONFIG_MAPPING:
            return HEADS["causal_lm"]  # of code beside the weights
        media = media or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        return transformers.AutoModelForMultimodalLM if media else HEADS["causal_lm"]
    if media and config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        _register_scored(request.head, type(config))
    return HEADS[request.head]


def _register_scored(head: str, config_class: Any) -> None:
    """Register a class with a score on the last hidden states of a model with media towers, as
    those that transformers has for other models. Its tensors have the names that theirs have."""
    auto = transformers.AutoModelForSequenceClassification
    body = transformers.AutoModel._model_mapping[config_class]
    if config_class in auto._model_mapping:
        return
    if body.__name__.endswith("ForConditionalGeneration"):  # Llama 4
        raise RecipeError(
            f"transformers has no class of {config_class.model_type} without its own head, so "
            f"there is none with a {head} head",
            place="stage",
            hint="family: {media: false} loads the language model alone, for some models",
        )
    plain = next(kind for kind in body.__mro__ if kind.__name__.endswith("PreTrainedModel"))
    name = body.__name__.removesuffix("Model") + "ForSequenceClassification"
    # of the module of the model: transformers renames the tensors of its own classes only
    scored = type(
        name,
        (GenericForSequenceClassification, plain),
        {"__module__": body.__module__, "config_class": config_class},
    )
    auto.register(config_class, scored, exist_ok=True)  # without it, nothing is done
