"""HfFamily: base class of the families of transformers models. Families are data, with hardly any
code."""

import pkgutil
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunewright import Plugin, Problem, RecipeError, hookimpl
from tunewright.events import Notice
from tunewright.types import LoadedModel, LoadRequest, RunContext
from tunewright_hf.models import listed, template_signs
from tunewright_hf.models.media_options import MediaOptions
from tunewright_hf.models.template_signs import FoundTemplate

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright_hf.models.tiny import TinyModelSpec

__all__ = ["HfFamily"]

#: modules that adapters leave alone unless told otherwise: heads, embeddings, and the routers of
#: mixtures of experts
ADAPTER_EXCLUDE = (
    "lm_head",
    "score",
    "embed_tokens",
    "gate",
    "router",
    "shared_expert_gate",
    "experts",
)


class HfFamily(Plugin):
    """A family of models of transformers.

    A family is a package with two files beside its `__init__.py`. checkpoints.toml has `pad_tokens`
    (what pads where a tokenizer has no pad token), `adapter_exclude` (further names, beyond
    ADAPTER_EXCLUDE), `media` (the model types that are loaded with media towers), `media_part`
    (model type → field of its config with the part that is loaded), `config_class` (model type →
    class of the package, in place of transformers' own, for which it registers a model class),
    `media_inputs` (model type → function of the package, as LoadedModel.media_inputs), a [[line]]
    for each group of checkpoints, a [[detect]] for each way to tell the template of an unlisted
    one, and a [[refused]] for each layout that is not loaded: its `model_type`, where needed a
    `field` of its config or the package `without` which it is not, and a `hint`: checkpoints that
    are loaded, or what to install. tiny.toml has a [[twin]]
    for each tiny twin, the default one first; its keys are those of
    tunewright_hf.models.tiny.TinyModelSpec. A third, tokenizers.toml, is for checkpoints without a
    tokenizer.json: see
    tunewright_hf.models.slow_tokenizers.

    A line, or one of its checkpoints, names its `template` and its `twin`, on which `--smoke` tries
    a recipe for it. `template_options`, which a [[detect]] may have too, are options of the
    template in which the checkpoint differs from others: its default system prompt (`system`), and
    what the template's head declares. `system_variable` of a [[detect]] is the variable of the
    checkpoint's own chat template that holds its default system prompt. `tied` says whether head
    and embeddings share a weight, where the twin's config says otherwise; `model_type` is that of
    the checkpoint's config.json where the twin only stands in for it, because its architecture is
    code beside the weights. `native` is the model_type of the class that such a checkpoint is
    loaded as: see tunewright_hf.models.native.
    """

    class Options(MediaOptions):
        revision: str | None = None
        """Branch, tag or commit of a model on the hub."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
            "auto", json_schema_extra={"tier": "basic"}
        )
        """Dtype of the weights in memory. auto: that of the checkpoint."""
        device: str = Field(
            "auto",
            pattern=r"^(auto|cpu|mps|xpu|npu|cuda(:\d+)?)$",
            json_schema_extra={"may_change": True},
        )
        """Device of the model. auto: this rank's GPU, else MPS, else the CPU."""
        attention: (
            Literal[
                "eager",
                "sdpa",
                "flex_attention",
                "flash_attention_2",
                "flash_attention_3",
                "flash_attention_4",
            ]
            | None
        ) = Field(None, json_schema_extra={"tier": "basic"})
        """Attention implementation. Default: the fastest one that is exact and needs no further
        package."""
        new_tokens: dict[str, str | None] | list[str] = Field(
            default_factory=dict,
            json_schema_extra={"tier": "advanced"},
            description="Tokens to add to the vocabulary, such as `<plan>: a plan of several "
            "steps`. Their embeddings begin as the mean of those of the description; without one, "
            "of all tokens. The adapter trains and saves them: lora and trainable_tokens train "
            "nothing else of the embeddings.",
        )
        tiny_variant: str | None = None
        """Tiny twin that `model: tiny` and `--smoke` use. Default: the twin of the recipe's
        checkpoint, without one the first."""
        tiny_hidden_size: int = Field(64, ge=16, le=2048, multiple_of=16)
        """Hidden size of the tiny twin."""
        tiny_layers: int = Field(2, ge=1, le=64)
        """Layers of the tiny twin."""

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        from tunewright_hf.models import new_tokens, quantizers

        yield from quantizers.objections_to_checkpoint(recipe)
        if self.options.new_tokens:
            yield from new_tokens.problems((*self.at, "new_tokens"), recipe)

    @hookimpl
    def load_model(self, run: RunContext, request: LoadRequest) -> LoadedModel:
        """Load with `request.loader` if given, else the tiny twin or the checkpoint."""
        from tunewright_hf.models.libraries import check_torchvision

        check_torchvision()
        from tunewright_hf.distributed.meeting import check_in, may_stop_alone
        from tunewright_hf.models import devices, hub, loading, new_tokens, stored_weights
        from tunewright_hf.models.attention import attention_named
        from tunewright_hf.models.interrupts import interruptible

        hub.disable_telemetry()  # for everything done with the model
        check_in(run)

        def notify(message: str, level: str) -> None:
            run.emit(Notice(message=message, level=level))

        def check_stop() -> None:
            if may_stop_alone():
                run.check_stop()

        request.dtype = request.dtype or self.options.dtype
        request.attention = request.attention or self.options.attention
        request.media = request.media and self.options.media
        data = self._data("checkpoints.toml")
        quantizer = stored_weights.recognise(run, request, self.options.revision)
        adapt_layers = stored_weights.layer_changes(request)
        with attention_named(request), interruptible(check_stop):
            if request.loader:
                loaded = request.loader(request)
            elif request.model == "tiny":
                loaded = self._tiny(run, request)
            else:
                loaded = loading.load(
                    request,
                    self.options.revision,
                    devices.pick_device(request.device or self.options.device),
                    notify,
                    check_stop,
                    self._data("tokenizers.toml").get("tokenizer", ()),
                    data.get("media", ()),
                    data.get("media_part", {}),
                    self._own_config,
                    data.get("refused", ()),
                )
        if loaded.template is None:
            self._set_template(run, request, loaded)
        loaded.adapter_exclude += (*ADAPTER_EXCLUDE, *data.get("adapter_exclude", ()))
        if self.options.new_tokens:
            new_tokens.add(loaded, self.options.new_tokens, request.seed, notify)
        self._finish_media(loaded, notify)
        adapt_layers(loaded)
        loaded = loading.finish(loaded, request, data.get("pad_tokens", ()), notify)
        return quantizer.call("finish_load", run=run, loaded=loaded) if quantizer else loaded

    def _set_template(self, run: RunContext, request: LoadRequest, loaded: LoadedModel) -> None:
        from tunewright_hf.models import hub

        named = run.recipe.template and run.recipe.template.name
        takes = loaded.processor is not None
        config = hub.read_config(request.model, self.options.revision) if takes else None
        found = self.template_for(request.model, loaded.tokenizer, named, config)
        loaded.template, loaded.template_options = found.name, found.options
        if found.told and named is None:
            signs = "tokenizer and its model type" if takes else "tokenizer"
            said = f"not a listed checkpoint: by its {signs}, its template is {found.name}"
            run.emit(Notice(message=said, level="info"))

    def template_for(
        self,
        model: str,
        tokenizer: Any,
        named: str | None = None,
        media_config: dict[str, Any] | None = None,
    ) -> "FoundTemplate":
        """The template of a checkpoint, with the options that suit it.

        It is that of a checkpoint that an installed family lists; else the installed one that was
        exported as the tokenizer's own, as of a model that was trained here; else, by signs, that
        of the first [[detect]] which the tokenizer fits; else `auto` where it has a chat template
        of its own; else None. named: look for this one alone, where the checkpoint is not listed.
        media_config: config.json of a checkpoint that is loaded with media, from which follows what
        stands for these.
        """
        if checkpoint := listed.find(model, self.package):
            return FoundTemplate(checkpoint.template, checkpoint.template_options)
        own = tokenizer.chat_template or ""
        # transformers allows several, by name
        own = own.get("default", "") if isinstance(own, dict) else own
        found = self._unlisted_template(tokenizer, own, named)
        if media_config is None:
            return found
        certain = bool(own) or named is not None
        return template_signs.with_media(found, self.package, media_config, certain)

    def _unlisted_template(self, tokenizer: Any, own: str, named: str | None) -> "FoundTemplate":
        """own: the tokenizer's chat template, or nothing."""
        data = self._data("checkpoints.toml")
        vocabulary = tokenizer.get_vocab()
        signs = [
            rule
            for rule in data.get("detect", ())
            if named in (None, rule["template"]) and template_signs.fits(rule, vocabulary, own)
        ]
        lines = [*signs, *data.get("line", ())]
        if own and (
            same := template_signs.exported(own, [line["template"] for line in lines], named)
        ):
            return same
        if signs:
            return FoundTemplate(
                signs[0]["template"], template_signs.options_of(signs[0], own), told=True
            )
        return FoundTemplate(named or "auto", told=True) if own else FoundTemplate(named)

    def tiny_config(
        self, twin: "TinyModelSpec", tokenizer: Any, hidden_size: int, layers: int
    ) -> Any:
        """Config of a tiny twin. Families override this if their config needs more than the usual
        fields."""
        from tunewright_hf.models import tiny

        return tiny.config(twin, tokenizer, hidden_size, layers)

    def _tiny(self, run: RunContext, request: LoadRequest) -> LoadedModel:
        from tunewright_hf.models import devices, tiny
        from tunewright_hf.models.checks import check_layout
        from tunewright_hf.models.errors import one_line
        from tunewright_hf.models.twins import choose

        chosen = choose(self, run, request)
        refused = self._data("checkpoints.toml").get("refused", ())
        check_layout({"model_type": chosen.twin.model_type}, refused, f"twin {chosen.twin.name}")
        tokenizer = tiny.tokenizer(chosen.twin)
        if request.tiny_of:  # the real model has a chat template, which `auto` uses
            tokenizer.chat_template = chosen.chat_template
        model = processor = None
        request.media = request.media and bool(chosen.twin.processor)
        if request.media:
            from tunewright_hf.models.tiny_media import processor as tiny_processor

            processor = tiny_processor(chosen.twin, tokenizer)
        if request.weights != "none":
            size, layers = self.options.tiny_hidden_size, self.options.tiny_layers
            hint = "leave tiny_hidden_size and tiny_layers out"
            with one_line(f"no twin has {size}", "family.tiny_hidden_size", hint):
                made = self.tiny_config(chosen.twin, tokenizer, size, layers)
                config = self._own_config(made)
            model = tiny.model(
                config, request, devices.pick_device(request.device or self.options.device)
            )
        loaded = LoadedModel(model, tokenizer, processor, template=chosen.template)
        loaded.template_options = chosen.template_options
        return loaded

    def _own_config(self, config: Any) -> Any:
        """The config, of the family's own class if it has one for its model type."""
        own = self._data("checkpoints.toml").get("config_class", {}).get(config.model_type)
        return pkgutil.resolve_name(own).from_dict(config.to_dict()) if own else config

    def _finish_media(self, loaded: LoadedModel, notify: Callable[[str, str], None]) -> None:
        """Apply the options for media. Raises RecipeError if the model has none."""
        from tunewright_hf.models.media_parts import frozen_parts
        from tunewright_hf.models.media_settings import configure

        data = self._data("checkpoints.toml")
        kind = loaded.model.config.model_type if loaded.model is not None else None
        if kind in data.get("media", ()):
            loaded.frozen = frozen_parts(loaded.model, self.options)
            loaded.adapter_exclude += loaded.frozen
        if loaded.processor is not None:
            configure(loaded.processor, self.options, notify)
            if own := data.get("media_inputs", {}).get(kind):
                loaded.media_inputs = pkgutil.resolve_name(own)
            return
        for name in ("train_tower", "train_projector"):
            if getattr(self.options, name):
                problem = "the model is loaded without media"
                raise RecipeError(problem, place=f"family.{name}", hint="leave it out")

    @property
    def package(self) -> str:
        """Name of the package with checkpoints.toml and tiny.toml."""
        return type(self).__module__.partition(".")[0]

    def _data(self, name: str) -> dict[str, Any]:
        return listed.read(self.package, name)
