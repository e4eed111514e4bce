"""Loading a checkpoint: sanitised config, tokenizer and safetensors, with the head that the stage
asks for."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from tunewright import RecipeError, RunError, TunewrightError
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models import checks, hub, remote_code, safety
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.errors import one_line
from tunewright_hf.models.modules import quantized_modules
from tunewright_hf.models.tokenizer_json import check_tokenizer_json

Notify = Callable[[str, str], None]  # message, level

#: head → auto class. A value head gives one number a token: the score's class, without taking the
#: last token.
HEADS = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "score": transformers.AutoModelForSequenceClassification,
    "value": transformers.AutoModelForSequenceClassification,
}

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "tokenization_*.py",
)


def load(
    request: LoadRequest, revision: str | None, device: torch.device, notify: Notify
) -> LoadedModel:
    """Load what `request` names from a folder or the hub, onto `device`; the folder is only read.

    request.dtype: a dtype's name, or auto for the checkpoint's own. notify: told what was ignored
    or chosen. Raises RunError where the checkpoint is missing, unsafe or not whole.
    """
    trusted = request.trust_remote_code
    folder = hub.locate(
        request.model, revision, weights=request.weights != "none", trust_remote_code=trusted
    )
    safety.check_no_adapter(folder)
    with _quiet(), one_line("cannot be loaded", request.model):
        config = _config(folder, trusted, notify)
        tokenizer = _tokenizer(folder, config, trusted)
        model = None
        if request.weights != "none":
            checks.check_generation_config(tokenizer, folder)
            model = _model(folder, config, request, device)
            if remote_code.is_remote(model):
                remote_code.restore_buffers(model, request)
            checks.check_finite(model, request.model)
    return LoadedModel(model, tokenizer)


@contextmanager
def attention_named(request: LoadRequest) -> Iterator[None]:
    """An attention that the recipe asks for and the model's class refuses is an error that says
    so."""
    try:
        yield
    except TunewrightError as error:
        if isinstance(cause := error.__cause__, ValueError | ImportError) and _refuses(
            cause, request
        ):
            raise _refusal(cause, request) from cause
        raise
    except (ValueError, ImportError) as error:  # of a tiny twin
        if _refuses(error, request):
            raise _refusal(error, request) from error
        raise


def _refuses(error: Exception, request: LoadRequest) -> bool:
    """Told by the words of transformers' error, which has no class of its own."""
    return request.attention is not None and "attention implementation" in str(error)


def _refusal(error: Exception, request: LoadRequest) -> RecipeError:
    said = str(error).strip().partition(". ")[0].partition("\n")[0]
    hint = (
        "leave out family.attention, or what asks for it: the fastest that the model can "
        "do is taken"
    )
    return RecipeError(
        f"attention {request.attention} cannot be used: {said}", place=request.model, hint=hint
    )


def _config(folder: Path, trusted: bool, notify: Notify) -> Any:
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(
            "holds no config.json",
            place=str(folder),
            hint="a checkpoint is what save_pretrained writes",
        )
    if trusted:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    found, dropped = safety.sanitised(hub.read_json(path))
    if dropped:
        notify(
            f"{path} names code or files to load, which is ignored: {', '.join(dropped)}", "warning"
        )
    model_type = found.get("model_type")
    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        hint = "pip install --upgrade transformers"
        if "auto_map" in dropped:
            hint = (
                "--trust-remote-code runs the checkpoint's own code: only for a "
                "publisher that you trust"
            )
        problem = f"transformers {transformers.__version__} knows no model_type {model_type!r}"
        raise RunError(problem, place=str(path), hint=hint)
    safety.check_counts(found, path)
    with one_line(f"is no config of {model_type}", str(path)):
        config = transformers.CONFIG_MAPPING[model_type].from_dict(found)
        part = config.get_text_config()
    if not isinstance(part, transformers.PreTrainedConfig):  # a key of a model with several parts
        raise RunError(f"has a part that no {model_type} has", place=str(path))
    return config


def _tokenizer(folder: Path, config: Any, trusted: bool) -> Any:
    if not trusted:
        safety.check_tokenizer(folder, [config.to_dict().get("tokenizer_class")])
    if not any(path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        # transformers would make a tokenizer with no vocabulary
        raise RunError(
            f"holds no tokenizer, none of {', '.join(_TOKENIZER_FILES)}", place=str(folder)
        )
    path = folder / "tokenizer.json"
    added = check_tokenizer_json(path) if path.is_file() else {}
    with one_line("the tokenizer cannot be loaded", str(folder)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=trusted
        )
    with one_line("the tokenizer cannot encode a text", str(folder)):
        tokenizer("Naïve 字 12,\n 🙂\t<s>")
    checks.check_added_tokens(tokenizer, added, path)
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers prints a table of what it could not load: that is told by errors of ours."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


def _model(folder: Path, config: Any, request: LoadRequest, device: torch.device) -> Any:
    stored = safety.check_weights(folder)
    if not request.trust_remote_code:
        checks.check_size(config, HEADS[request.head], stored, folder / "config.json")
    arguments: dict[str, Any] = {"dtype": request.dtype or "auto"}
    if device.type != "cpu":
        arguments["device_map"] = {"": device}
    if request.attention:
        arguments["attn_implementation"] = request.attention
    if request.quantization is not None:
        arguments["quantization_config"] = request.quantization
    if request.head != "causal_lm":
        config.num_labels = 1
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    with seeded(request.seed, device):
        model, report = HEADS[request.head].from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are an error, below, in words of ours
            trust_remote_code=request.trust_remote_code,
            **arguments | request.model_arguments,
        )
    with one_line("cannot be used", str(folder / "config.json")):
        model.config.validate()  # as saving the result will do; attention is chosen only now
    if report["mismatched_keys"]:
        name, stored, wanted = min(report["mismatched_keys"])
        problem = f"{name} is {list(stored)} in the weights, {list(wanted)} by config.json"
        raise RunError(problem, place=request.model, hint="both have to be of the same checkpoint")
    made = "score." if request.head != "causal_lm" else ()
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(made)):
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise RunError(f"has no weights for {some}: they would be random", place=request.model)
    return model


# ---- for checkpoints and tiny twins alike --------------------------------------------------------


def finish(
    loaded: LoadedModel, request: LoadRequest, pad_tokens: Iterable[str], notify: Notify
) -> LoadedModel:
    """Set the model's pad token and name and LoadedModel.quantized; freeze the model if it is not
    to be trained.

    pad_tokens: what to pad with where the tokenizer has no pad token: the first that it knows, else
    EOS, which is safe since labels and attention go by positions, never by the pad token's id.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    own, rows = tokenizer.pad_token, None if model is None else checks.embedding_rows(model)
    number = tokenizer.pad_token_id  # None for "", which some have in its place
    beyond = number is not None and rows is not None and number >= rows
    if number is None or beyond:
        known = tokenizer.get_vocab()
        known = {token for token, number in known.items() if rows is None or number < rows}
        tokenizer.pad_token = next(
            (token for token in pad_tokens if token in known), tokenizer.eos_token
        )
        if tokenizer.pad_token_id is None:
            raise RunError("the tokenizer has neither a pad nor an EOS token", place=request.model)
        problem = f"has no embedding for its pad token {own}" if beyond else "has no pad token"
        who = "the model" if beyond else "the tokenizer"
        notify(f"{who} {problem}; {tokenizer.pad_token} pads", "info")
    if model is not None:
        model.name_or_path = model.config.name_or_path = request.model  # not the cache's folder
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        if model.can_generate():
            model.generation_config.pad_token_id = tokenizer.pad_token_id
        loaded.quantized = quantized_modules(model)
        for name, parameter in model.eval().named_parameters():
            plain = name.rpartition(".")[0] not in loaded.quantized
            parameter.requires_grad_(request.trainable and plain)
        checks.check_vocabulary(loaded, request.model, [own] if beyond else [])
        if remote_code.is_remote(model):
            remote_code.probe(model, tokenizer, request.model)
    return loaded
