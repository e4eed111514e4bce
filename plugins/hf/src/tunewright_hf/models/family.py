"""HfFamily: what every model family that transformers knows is made of. Families bring data, and
hardly any code."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunewright import Plugin, PluginOptions, TunewrightError, hookimpl, registry
from tunewright.events import Notice
from tunewright.types import LoadedModel, LoadRequest
from tunewright_hf.models import listed

if TYPE_CHECKING:
    from tunewright.run import Run
    from tunewright_hf.models.tiny import TinyModelSpec

__all__ = ["HfFamily"]

#: modules that no adapter touches unless it is told to: heads, embeddings, and what sends tokens to
#: experts
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
    ADAPTER_EXCLUDE), a [[line]] for each group of checkpoints, and a [[detect]] for each way to
    tell the template of an unlisted one. tiny.toml has a [[twin]] for each tiny twin, the default
    one first; its keys are those of tunewright_hf.models.tiny.TinyModelSpec.

    A line, or one of its checkpoints, names its `template` and its `twin`, on which `--smoke` tries
    a recipe for it. `tied` says whether head and embeddings share a weight, where the twin's
    config says otherwise; `model_type` is that of the checkpoint's config.json where the twin only
    stands in for it, because its architecture is code beside the weights.
    """

    class Options(PluginOptions):
        revision: str | None = None
        """Branch, tag or commit of a model on the hub."""
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        """Dtype of the weights in memory. auto: that of the checkpoint."""
        device: str = Field("auto", pattern=r"^(auto|cpu|mps|xpu|npu|cuda(:\d+)?)$")
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
        ) = None
        """Attention implementation. Default: the fastest one that is exact and needs no further
        package."""
        tiny_variant: str | None = None
        """Tiny twin that `model: tiny` and `--smoke` use. Default: the twin of the recipe's
        checkpoint, without one the first."""
        tiny_hidden_size: int = Field(64, ge=16, le=2048, multiple_of=16)
        """Hidden size of the tiny twin."""
        tiny_layers: int = Field(2, ge=1, le=64)
        """Layers of the tiny twin."""

    @hookimpl
    def load_model(self, run: "Run", request: LoadRequest) -> LoadedModel:
        """Load with `request.loader` where there is one; else the tiny twin, or the checkpoint."""
        from tunewright_hf.models import devices, hub, loading

        hub.disable_telemetry()  # of all that is done with the model

        def notify(message: str, level: str) -> None:
            run.emit(Notice(message=message, level=level))

        request.dtype = request.dtype or self.options.dtype
        request.attention = request.attention or self.options.attention
        data = self._data("checkpoints.toml")
        with loading.attention_named(request):
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
                )
        # looking for it reads all installed templates: a recipe that names one does without
        if loaded.template is None and run.recipe.template is None:
            loaded.template, told = self.template_for(request.model, loaded.tokenizer)
            if told:
                notify(
                    f"not a listed checkpoint: by its tokenizer, its template is {loaded.template}",
                    "info",
                )
        loaded.adapter_exclude += (*ADAPTER_EXCLUDE, *data.get("adapter_exclude", ()))
        return loading.finish(loaded, request, data.get("pad_tokens", ()), notify)

    def template_for(self, model: str, tokenizer: Any) -> tuple[str | None, bool]:
        """The template of a checkpoint, and whether it was told by signs.

        It is that of a checkpoint that an installed family lists; else the installed one that was
        exported as the tokenizer's own, as of a model that was trained here; else, by signs, that
        of the first [[detect]] which the tokenizer fits; else `auto` where it has a chat template
        of its own; else None.
        """
        data, own = self._data("checkpoints.toml"), tokenizer.chat_template or ""
        own = (
            own.get("default", "") if isinstance(own, dict) else own
        )  # transformers allows several by name
        if checkpoint := listed.find(model, self.package):
            return checkpoint.template, False
        vocabulary = tokenizer.get_vocab()
        signs = [
            rule["template"] for rule in data.get("detect", ()) if _fits(rule, vocabulary, own)
        ]
        lines = [line["template"] for line in data.get("line", ())]
        if own and (same := _exported(own, [*signs, *lines])):
            return same, False
        found = next(iter(signs), "auto" if own else None)
        return found, found is not None

    def tiny_config(
        self, twin: "TinyModelSpec", tokenizer: Any, hidden_size: int, layers: int
    ) -> Any:
        """The config of a tiny twin. A family whose config needs more than its fields overrides
        this."""
        from tunewright_hf.models import tiny

        return tiny.config(twin, tokenizer, hidden_size, layers)

    def _tiny(self, run: "Run", request: LoadRequest) -> LoadedModel:
        from tunewright_hf.models import devices, tiny
        from tunewright_hf.models.twins import choose

        chosen = choose(self, run, request)
        tokenizer = tiny.tokenizer(chosen.twin)
        if request.tiny_of:  # what it stands for has a chat template, which `auto` takes
            tokenizer.chat_template = chosen.chat_template
        model = None
        if request.weights != "none":
            config = self.tiny_config(
                chosen.twin, tokenizer, self.options.tiny_hidden_size, self.options.tiny_layers
            )
            model = tiny.model(
                config, request, devices.pick_device(request.device or self.options.device)
            )
        return LoadedModel(model, tokenizer, template=chosen.template)

    @property
    def package(self) -> str:
        """Name of the package that holds checkpoints.toml and tiny.toml."""
        return type(self).__module__.partition(".")[0]

    def _data(self, name: str) -> dict[str, Any]:
        return listed.read(self.package, name)


def _fits(rule: dict[str, Any], vocabulary: dict[str, int], own: str) -> bool:
    """Whether a [[detect]] fits a tokenizer with this vocabulary and chat template.

    A rule of tokens alone does not fit where a chat template writes none of them: it is another
    format then.
    """
    pieces, tokens = rule.get("chat_template"), rule.get("tokens", ())
    if pieces is None:
        known = not own or any(token in own for token in tokens)
    else:
        known = (
            all(piece in own for piece in ([pieces] if isinstance(pieces, str) else pieces))
            if pieces
            else not own
        )
    return known and all(token in vocabulary for token in tokens)


def _exported(own: str, first: list[str]) -> str | None:
    """The installed template file that is exported as this chat template; of several alike, one of
    `first`."""
    alike = []
    for entry in registry.entries("template"):
        if ":" in entry.value:  # code, which is run only where it is asked for
            continue
        try:
            made: Any = registry.load(entry)
            if made(made.Options(), entry.name).chat_template().rstrip() == own.rstrip():
                alike.append(entry.name)
        except TunewrightError:
            continue  # a broken one that nobody asked for
    return next((name for name in first if name in alike), next(iter(alike), None))
