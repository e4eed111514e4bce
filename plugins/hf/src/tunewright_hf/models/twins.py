"""Choose the tiny twin, and its template, that replaces a recipe's checkpoint in `--smoke`."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError, RunError, TunewrightError, registry
from tunewright.errors import did_you_mean
from tunewright.events import Notice
from tunewright.types import LoadRequest, RunContext
from tunewright_hf.models import devices, hub, listed, loading
from tunewright_hf.models.tiny import TinyModelSpec

if TYPE_CHECKING:
    from tunewright_hf.models.family import HfFamily

__all__ = ["specs"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A tiny twin with its template."""

    twin: TinyModelSpec
    template: str
    chat_template: str | None = None  # the tokenizer's own; None: the export of `template`
    note: str = ""  # further information for the user
    template_options: dict[str, Any] = field(default_factory=dict)


def choose(family: "HfFamily", run: RunContext, request: LoadRequest) -> Choice:
    """Choose the twin for `request.tiny_of`, and say in a notice which it is and why.

    In this order: the twin that the option `tiny_variant` names; that of a listed checkpoint; that
    of another checkpoint with the same `model_type`; the family's first. Raises RecipeError for an
    unknown `tiny_variant`, RunError if the files of an unlisted checkpoint cannot be loaded.
    """
    twins, variant = specs(family.package), family.options.tiny_variant
    if variant is not None and variant not in twins:
        raise RecipeError(
            f"there is no tiny twin {variant!r}",
            place="family.tiny_variant",
            hint=did_you_mean(variant, twins),
        )
    first = twins[variant] if variant is not None else next(iter(twins.values()))
    if request.tiny_of in (None, "tiny"):
        return Choice(first, first.template, template_options=dict(first.template_options))
    if variant is not None:
        chosen = Choice(first, first.template, note="as family.tiny_variant says")
    elif found := listed.find(request.tiny_of, family.package):
        chosen = _of_listed(found)
    else:
        chosen = _of_unlisted(family, run, request)
    said = f"tiny twin {chosen.twin.name} stands for {request.tiny_of}"
    parts = [f"{said}, with template {chosen.template}", chosen.note]
    run.emit(Notice(message="; ".join(filter(None, parts))))
    if chosen.chat_template is None:
        source = chosen.template if chosen.template != "auto" else chosen.twin.template
        plugin = _template(source, chosen.template_options if source == chosen.template else {})
        chosen = replace(chosen, chat_template=plugin and plugin.chat_template())
    return chosen


def specs(package: str) -> dict[str, TinyModelSpec]:
    """Tiny twins of a family's package by name, the default first."""
    tables = listed.read(package, "tiny.toml")["twin"]
    return {table["name"]: TinyModelSpec(**table) for table in tables}


def of_line(found: listed.Listed) -> TinyModelSpec:
    """Twin of a listed checkpoint, with head and embeddings tied like the checkpoint's.

    The package's first if the line names none. Raises RecipeError for an unknown name.
    """
    twins = specs(found.package)
    name = found.twin or next(iter(twins))
    if name not in twins:
        raise RecipeError(
            f"there is no tiny twin {name!r}",
            place=f"checkpoints.toml of {found.package}",
            hint=did_you_mean(name, twins),
        )
    if found.tied is None:
        return twins[name]
    return replace(twins[name], config={**twins[name].config, "tie_word_embeddings": found.tied})


def _of_listed(found: listed.Listed) -> Choice:
    twin, notes = of_line(found), []
    if found.model_type not in (None, twin.model_type):
        notes.append(_stand_in(str(found.model_type), twin))
    if found.template == "auto":
        notes.append(f"in place of the checkpoint's own chat template stands {twin.template}")
    return Choice(
        twin, found.template, note="; ".join(notes), template_options=found.template_options
    )


def _of_unlisted(family: "HfFamily", run: RunContext, request: LoadRequest) -> Choice:
    model, revision = str(request.tiny_of), family.options.revision
    twins = specs(family.package)
    first = next(iter(twins.values()))
    trusted = request.trust_remote_code
    try:
        folder = hub.locate(model, revision, weights=False, trust_remote_code=trusted)
    except RunError as error:  # no such folder, or no network
        return Choice(first, first.template, note=f"the family's first, for {error}")
    file = folder / "config.json"
    config = hub.read_json(file) if file.is_file() else {}
    twin, note = _of_config(config, family.package, twins)
    light = LoadRequest(model, weights="none", trust_remote_code=trusted)
    tables = listed.read(family.package, "tokenizers.toml").get("tokenizer", ())
    cpu = devices.pick_device("cpu")
    tokenizer = loading.load(light, revision, cpu, _ignore, tokenizers=tables).tokenizer
    named = run.recipe.template
    told = family.template_for(model, tokenizer, named and named.name)
    template = named.name if named else told.name
    options = told.options if template == told.name else {}
    if template is None:
        return Choice(twin, twin.template, note=f"{note}; no template is known for it")
    own = tokenizer.get_chat_template(tools=[]) if tokenizer.chat_template else ""
    if template == "auto" and own:
        written = [  # special tokens that the template may compose from a role's name
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or token.content in own
        ]
        return Choice(_with_tokens(twin, tokenizer, written), template, own, note)
    info = getattr(_template(template, options), "info", None)
    written = [*info.control, *info.stop] if info else []
    return Choice(_with_tokens(twin, tokenizer, written), template, own or None, note, options)


def _of_config(
    config: dict[str, Any], package: str, twins: dict[str, TinyModelSpec]
) -> tuple[TinyModelSpec, str]:
    """The twin for a config.json, and a note on how it was chosen."""
    types = [config.get("model_type"), (config.get("text_config") or {}).get("model_type")]
    for twin in twins.values():
        if twin.model_type in types:
            return twin, f"its model_type is {twin.model_type} too"
    for each in listed.checkpoints(package):
        if each.model_type and each.model_type == types[0]:
            twin = of_line(each)
            return twin, _stand_in(each.model_type, twin)
    note = f"the family's first, since no tiny twin has the model_type {types[0]}"
    return next(iter(twins.values())), note


def _with_tokens(twin: TinyModelSpec, tokenizer: Any, written: Iterable[str]) -> TinyModelSpec:
    """Add tokens that the template writes and the checkpoint's tokenizer has."""
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    known, vocabulary = {*twin.special, *twin.words}, tokenizer.get_vocab()
    more = [token for token in dict.fromkeys(written) if token in vocabulary.keys() - known]
    words = tuple(token for token in more if token in added and not added[token].special)
    special = tuple(token for token in more if token not in words)
    return replace(twin, special=(*twin.special, *special), words=(*twin.words, *words))


def _stand_in(model_type: str, twin: TinyModelSpec) -> str:
    return (
        f"the twin is a stand-in of type {twin.model_type}: the checkpoint's own architecture, "
        f"{model_type}, is code beside its weights"
    )


def _template(name: str, options: dict[str, Any]) -> Any:
    """An installed template with these options; None if there is none."""
    try:
        made = registry.load(registry.find("template", name))
        return made(made.Options(**options), name)
    except TunewrightError:  # the recipe may name another
        return None


def _ignore(message: str, level: str) -> None:
    """Ignore notices about the real checkpoint: they are shown when it is loaded."""
