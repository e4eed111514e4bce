"""Code of checkpoints that was written for transformers 4, run with transformers 5.

Only with --trust-remote-code. Only classes of `transformers_modules` are changed, the package into
which transformers copies such code; transformers' own classes stay as they are. Names that
transformers 4 had are there while a checkpoint's modules are imported, and gone afterwards.

Private names of transformers in use here: dynamic_module_utils.get_class_in_module and
check_imports; get_init_context, _tied_weights_keys and all_tied_weights_keys of PreTrainedModel;
_supports_default_dynamic_cache, _prepare_cache_for_generation and _extract_past_from_model_output
of GenerationMixin. Tested with the versions in TESTED.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, dynamic_module_utils
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin

from tunewright import RunError
from tunewright_hf.models.errors import NEEDS_TOKENIZERS
from tunewright_hf.models.legacy_cache import LegacyCache

TESTED = ("5.23", "5.24")  # from the first, below the second

#: module → what transformers 4 had in it
_NAMES: dict[str, dict[str, Any]] = {
    "transformers.utils": {
        "is_torch_fx_available": lambda: False,
        "is_flash_attn_available": lambda: False,
    },
    "transformers.utils.import_utils": {"is_torch_fx_available": lambda: False},
    "transformers.cache_utils": {"HybridCache": Cache},
}
#: what every config had
_CONFIG: dict[str, Any] = {
    "add_cross_attention": False,
    "bos_token_id": None,
    "cross_attention_hidden_size": None,
    "eos_token_id": None,
    "gradient_checkpointing": False,
    "is_decoder": False,
    "pad_token_id": None,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "torchscript": False,
    "use_cache": True,
}
#: and what only generation reads now: were it there for good, transformers would refuse to save
_GENERATION: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "max_length": 20,
    "min_length": 0,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
_building: ContextVar[bool] = ContextVar("building", default=False)
_DONE = "_tunewright_adapted"


def is_remote(cls: type) -> bool:
    """Whether a class came with a checkpoint."""
    return cls.__module__.partition(".")[0] == "transformers_modules"


def untested() -> str | None:
    """Version of transformers, where this module was not tested with it."""
    installed = tuple(map(int, transformers.__version__.split(".")[:2]))
    first, end = (tuple(map(int, each.split("."))) for each in TESTED)
    return None if first <= installed < end else transformers.__version__


@contextmanager
def adapting(place: str, notify: Callable[[str, str], None]) -> Iterator[None]:
    """While this lasts, code that comes with checkpoints is imported and its classes are adapted.

    place: the checkpoint. notify: told of a version that was not tested. Raises RunError for a
    package that the code imports and that is missing.
    """
    if version := untested():
        notify(f"code of checkpoints was not tested with transformers {version}", "warning")
    get_class = dynamic_module_utils.get_class_in_module

    def adapted(*args: Any, **kwargs: Any) -> type:
        found = get_class(*args, **kwargs)
        for name, module in list(sys.modules.items()):
            if name.startswith("transformers_modules."):
                _adapt_module(module)
        return found

    with ExitStack() as stack:
        for name, values in _NAMES.items():
            module = importlib.import_module(name)
            for key, value in values.items():
                if not hasattr(module, key):
                    stack.enter_context(_set(module, key, value))
        # it refuses packages that are imported only where they are used, in functions for chats
        relative = dynamic_module_utils.get_relative_imports
        stack.enter_context(_set(dynamic_module_utils, "check_imports", relative))
        stack.enter_context(_set(dynamic_module_utils, "get_class_in_module", adapted))
        try:
            yield
        except ModuleNotFoundError as error:
            problem = f"its own code imports {error.name}, which is not here"
            hint = f"pip install {error.name}"
            if error.name in ("sentencepiece", "tiktoken"):
                hint = NEEDS_TOKENIZERS
            if str(error.name).startswith("transformers."):
                hint = "the code was written for another version of transformers"
            raise RunError(problem, place=place, hint=hint) from error


@contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _adapt_module(module: ModuleType) -> None:
    if vars(module).get("DynamicCache") is DynamicCache:
        vars(module)["DynamicCache"] = LegacyCache
    for each in list(vars(module).values()):
        if not (isinstance(each, type) and is_remote(each)) or _DONE in vars(each):
            continue
        if issubclass(each, PreTrainedConfig):
            setattr(each, _DONE, True)
            _adapt_config(each)
        elif issubclass(each, PreTrainedModel):
            setattr(each, _DONE, True)
            _adapt_model(each)


# ---- configs -------------------------------------------------------------------------------------


def _adapt_config(cls: Any) -> None:
    cls.__getattr__ = _config_default
    if not _is_native_below(cls):
        # as config.json says it: transformers 5 makes a dict of None, with other keys
        cls.rope_scaling = property(
            lambda self: vars(self).get("rope_scaling"),
            lambda self, value: vars(self).__setitem__("rope_scaling", value),
        )


def _config_default(self: Any, name: str) -> Any:
    if name in _CONFIG:
        return _CONFIG[name]
    if name in _GENERATION and _building.get():
        return _GENERATION[name]
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _is_native_below(cls: type) -> bool:
    """Whether it derives from a model or config of transformers' own, made for this version."""
    return any(each.__module__.startswith("transformers.models.") for each in cls.__mro__)


# ---- models --------------------------------------------------------------------------------------


def _adapt_model(cls: Any) -> None:
    if "__init__" in vars(cls):
        cls.__init__ = _adapted_init(cls.__init__)
    cls.get_init_context = classmethod(_init_context)
    if _is_native_below(cls):
        return
    if isinstance(getattr(cls, "_tied_weights_keys", None), list | tuple):
        cls._tied_weights_keys = None
    for name, value in (
        ("all_tied_weights_keys", {}),  # of a class that never calls post_init
        ("get_head_mask", lambda self, mask, layers, *_: [None] * layers),
        (
            "_extract_past_from_model_output",
            lambda self, outputs, *_, **__: getattr(outputs, "past_key_values", None),
        ),
    ):
        if not hasattr(cls, name):
            setattr(cls, name, value)
    if "prepare_inputs_for_generation" in vars(cls):
        cls.prepare_inputs_for_generation = _own_positions(cls.prepare_inputs_for_generation)
    if _knows_caches(sys.modules[cls.__module__]):
        cls._prepare_cache_for_generation = _with_legacy_cache
    else:
        cls._supports_default_dynamic_cache = classmethod(lambda cls: False)


def _init_context(cls: Any, *args: Any, **kwargs: Any) -> list[Any]:
    """Parameters without storage, but all else with it: `__init__` computes tables."""
    from accelerate import init_empty_weights

    own: Any = vars(PreTrainedModel)["get_init_context"]
    contexts = own.__func__(cls, *args, **kwargs)
    kept = [each for each in contexts if each != torch.device("meta")]
    if len(kept) == len(contexts):
        return kept
    return [*kept, init_empty_weights(include_buffers=False)]


def _adapted_init(own: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(own)
    def adapted(self: Any, *args: Any, **kwargs: Any) -> None:
        token = _building.set(True)
        try:
            own(self, *args, **kwargs)
        finally:
            _building.reset(token)
        _tie(self)

    return adapted


def _tie(model: Any) -> None:
    """Head and embeddings share a weight wherever the config says so, as transformers 4 had it: 5
    needs a dict of names in the class, where 4 had a list, or nothing."""
    if isinstance(type(model)._tied_weights_keys, dict):
        return
    keys = {}
    if getattr(model.config, "tie_word_embeddings", True):
        try:
            embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        except (AttributeError, NotImplementedError):  # not built yet, or a model without a head
            return
        names = {id(module): name for name, module in model.named_modules()}
        if head is not None and head is not embeddings:
            keys = {f"{names[id(head)]}.weight": f"{names[id(embeddings)]}.weight"}
    model._tied_weights_keys = keys
    model.all_tied_weights_keys = dict(keys)
    if keys:
        model.tie_weights()


def _own_positions(own: Callable[..., Any]) -> Callable[..., Any]:
    """generate now makes position_ids of the whole length: old code makes its own, of what is
    new."""
    if "super" in own.__code__.co_names:
        return own

    @functools.wraps(own)
    def prepare_inputs_for_generation(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("position_ids", None)
        return own(self, *args, **kwargs)

    return prepare_inputs_for_generation


def _knows_caches(module: ModuleType) -> bool:
    """Whether code works with Cache objects: it names them, or holds a model of transformers."""
    if "cache_utils" in inspect.getsource(module):
        return True
    return any(
        isinstance(each, type)
        and issubclass(each, PreTrainedModel)
        and each.__module__.startswith("transformers.models.")
        for each in vars(module).values()
    )


def _with_legacy_cache(
    self: Any, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
) -> None:
    GenerationMixin._prepare_cache_for_generation(
        self, generation_config, model_kwargs, *args, **kwargs
    )
    made = model_kwargs.get("past_key_values")
    if type(made) is DynamicCache:
        made.__class__ = LegacyCache
