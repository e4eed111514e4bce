"""Load a checkpoint: sanitised config, tokenizer, and safetensors with the stage's head."""

import copy
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers

from tunewright import RunError
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models import (
    checks,
    forward_check,
    hub,
    legacy_code,
    native_loading,
    remote_code,
    safety,
    slow_tokenizers,
    stored_weights,
    tokenizer_loading,
)
from tunewright_hf.models.deferred import DeferredWeights, unnamed_on_meta
from tunewright_hf.models.dequantized import forget, make_dequantizable, was_dequantized
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.errors import PUBLISHED, one_line
from tunewright_hf.models.heads import auto_class, set_outputs
from tunewright_hf.models.interrupts import interruptible
from tunewright_hf.models.modules import quantized_modules
from tunewright_hf.models.native import Native
from tunewright_hf.models.processors import has_processor, load_processor

__all__ = ["set_quantized"]

Notify = Callable[[str, str], None]  # message, level


def load(
    request: LoadRequest,
    revision: str | None,
    device: torch.device,
    notify: Notify,
    check_stop: Callable[[], None] = lambda: None,
    tokenizers: Iterable[slow_tokenizers.Table] = (),
    media: Collection[str] = (),
    media_part: Mapping[str, str] = MappingProxyType({}),
    own_config: Callable[[Any], Any] = lambda config: config,
    refused: Iterable[Mapping[str, str]] = (),
) -> LoadedModel:
    """Load what `request` names from a folder or the hub, onto `device`; the folder is only read.

    request.dtype: a dtype's name, or auto for the checkpoint's own. notify: told what was ignored
    or chosen. check_stop: called between two parts, raises Stopped. tokenizers: tables as in
    slow_tokenizers. media, media_part, refused: see HfFamily. own_config: the config in the
    family's class. Raises RunError if the checkpoint is missing, unsafe or not whole.
    """
    trusted = request.trust_remote_code
    folder = hub.locate(
        request.model, revision, weights=request.weights != "none", trust_remote_code=trusted
    )
    check_stop()
    safety.check_no_adapter(folder)
    if (path := folder / "config.json").is_file():
        checks.check_layout(hub.read_json(path), refused, str(path))
    own_code = legacy_code.adapting(request.model, notify) if trusted else nullcontext()
    with quiet(), one_line("cannot be loaded", request.model), own_code:
        config, native = read_config(folder, trusted, notify)
        config = own_config(getattr(config, media_part.get(config.model_type, ""), config))
        tokenizer = tokenizer_loading.load(folder, config, trusted, tokenizers)
        model = deferred = processor = None
        request.media = request.media and config.model_type in media and has_processor(folder)
        if request.media:
            processor = load_processor(folder, tokenizer, trusted)
        if request.weights != "none":
            stored_weights.prepare(config, request, str(folder / "config.json"))
            for edit in request.config_edits:
                edit(config)
            checks.check_generation_config(tokenizer, folder)
            check_stop()
        if request.weights == "meta":
            model, deferred = _deferred(folder, config, native, request, device, notify, check_stop)
        elif request.weights == "load":
            model = _with_weights(folder, config, native, request, device, check_stop)
        if native is not None and model is not None:
            notify(native_loading.said(request.model, model, native), "info")
    return LoadedModel(model, tokenizer, processor, deferred=deferred)


def read_config(folder: Path, trusted: bool, notify: Notify) -> tuple[Any, Native | None]:
    """The config, and where it is that of a native class in place of the checkpoint's own code, how
    its tensors become native ones."""
    path = folder / "config.json"
    if not path.is_file():
        raise RunError(
            "holds no config.json",
            place=str(folder),
            hint="a checkpoint is what save_pretrained writes",
        )
    found, dropped = safety.sanitised(hub.read_json(path))
    safety.check_counts(found, path)
    native = native_loading.find(found, path)
    if native is not None:
        found = native.config
        dropped = [name for name in dropped if name != "auto_map"]  # said below in better words
    elif trusted:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True), None
    if dropped:
        notify(
            f"{path} names code or files to load, which is ignored: {', '.join(dropped)}", "warning"
        )
    model_type = found.get("model_type")
    if model_type is None:
        raise RunError("names no model_type", place=str(path), hint=PUBLISHED)
    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        hint = "pip install --upgrade transformers"
        if "auto_map" in dropped:
            hint = (
                "--trust-remote-code runs the checkpoint's own code: only for a "
                "publisher that you trust"
            )
        problem = f"transformers {transformers.__version__} knows no model_type {model_type!r}"
        raise RunError(problem, place=str(path), hint=hint)
    with one_line(f"is no config of {model_type}", str(path), PUBLISHED):
        config = transformers.CONFIG_MAPPING[model_type].from_dict(found)
        part = config.get_text_config()
    if not isinstance(part, transformers.PreTrainedConfig):  # part of a composite config
        raise RunError(f"has a part that no {model_type} has", place=str(path), hint=PUBLISHED)
    return config, native


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' report of weights that could not be loaded: our own errors cover
    it."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


def load_weights(
    folder: Path, config: Any, native: Native | None, request: LoadRequest, device: torch.device
) -> Any:
    stored = safety.check_weights(folder)
    if native is not None or not request.trust_remote_code:
        kind = auto_class(request, config)
        checks.check_size(config, kind, stored, folder / "config.json")
    arguments: dict[str, Any] = {"dtype": request.dtype or "auto"}
    if device.type != "cpu":
        arguments["device_map"] = {"": device}
    if request.attention:
        arguments["attn_implementation"] = request.attention
    if request.quantization is not None:
        arguments["quantization_config"] = request.quantization
    set_outputs(config, request)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    arguments |= {
        "config": config,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are an error, below, in words of ours
        **request.model_arguments,
    }
    with seeded(request.seed, device):
        if native is not None:
            model, report = native_loading.load(folder, native, request.head, arguments)
        else:
            model, report = auto_class(request, config).from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=request.trust_remote_code,
                **arguments,
            )
    with one_line("cannot be used", str(folder / "config.json"), PUBLISHED):
        model.config.validate()  # also done when the result is saved; attention is chosen only now
    if report["mismatched_keys"]:
        name, stored, wanted = min(report["mismatched_keys"])
        problem = f"{name} is {list(stored)} in the weights, {list(wanted)} by config.json"
        raise RunError(problem, place=request.model, hint="both have to be of the same checkpoint")
    made = "score." if request.head != "causal_lm" else ()
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(made)):
        some = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise RunError(f"has no weights for {some}: they would be random", place=request.model)
    native_loading.hold_constants(model)
    return model


def _with_weights(
    folder: Path,
    config: Any,
    native: Native | None,
    request: LoadRequest,
    device: torch.device,
    check_stop: Callable[[], None],
) -> Any:
    model = load_weights(folder, config, native, request, device)
    check_stop()
    if remote_code.is_foreign(model):
        remote_code.restore_buffers(model, request)
    checks.check_finite(model, request.model, check_stop)
    return model


def _deferred(
    folder: Path,
    config: Any,
    native: Native | None,
    request: LoadRequest,
    device: torch.device,
    notify: Notify,
    check_stop: Callable[[], None],
) -> tuple[Any, DeferredWeights | None]:
    """The model without storage and the way to its weights; if that cannot be, whole and None."""
    reason = None
    if request.trust_remote_code:
        reason = "its own code may compute tensors when it is built"
    elif request.quantization is not None or hasattr(config, "quantization_config"):
        reason = "it is quantized"
    else:
        model = load_weights(folder, copy.deepcopy(config), native, request, torch.device("meta"))
        if name := unnamed_on_meta(model):
            reason = f"{name} is neither a parameter nor a buffer"
    if reason is not None:
        notify(f"{request.model} is loaded whole by each rank before sharding: {reason}", "info")
        return _with_weights(folder, config, native, request, device, check_stop), None

    def load() -> Any:
        cpu = torch.device("cpu")
        with quiet(), one_line("cannot be loaded", request.model), interruptible(check_stop):
            return _with_weights(folder, config, native, request, cpu, check_stop)

    return model, DeferredWeights(device, load)


def set_quantized(loaded: LoadedModel) -> None:
    """Set LoadedModel.quantized and linear_types by what the model's layers are, and give the model
    a `dequantize` that fits them."""
    model = loaded.model
    loaded.quantized = quantized_modules(model)
    if loaded.quantized:
        stored_weights.keep_layout(model)
        kinds = {type(model.get_submodule(name)) for name in loaded.quantized}
        linear = {
            kind for kind in kinds if not issubclass(kind, torch.nn.Linear | torch.nn.Embedding)
        }
        loaded.linear_types = (
            *loaded.linear_types,
            *sorted(linear, key=lambda kind: kind.__name__),
        )
        make_dequantizable(model, loaded.quantized)
    elif was_dequantized(model):
        forget(model)


def finish(
    loaded: LoadedModel, request: LoadRequest, pad_tokens: Iterable[str], notify: Notify
) -> LoadedModel:
    """Set the model's pad token and name and LoadedModel.quantized; freeze the model if it is not
    to be trained.

    pad_tokens: used if the tokenizer has no pad token: the first in its vocabulary, else EOS. This
    is safe since labels and attention go by position, never by the pad token's id.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    own, rows = tokenizer.pad_token, None if model is None else checks.embedding_rows(model)
    number = tokenizer.pad_token_id  # None for "", which some tokenizers have
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
        set_quantized(loaded)
        for name, parameter in model.eval().named_parameters():
            plain = name.rpartition(".")[0] not in loaded.quantized
            parameter.requires_grad_(request.trainable and plain)
        checks.check_vocabulary(loaded, request.model, [own] if beyond else [])
        if loaded.deferred is None:
            forward_check.check_forward(loaded, request.model, notify)
    return loaded
