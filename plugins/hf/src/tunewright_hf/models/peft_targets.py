"""Which modules of a model a PEFT adapter acts on, in the form that PEFT reads them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunewright import RecipeError
from tunewright.types import LoadedModel
from tunewright_hf.models.modules import matching, within
from tunewright_hf.models.peft_import import without_bitsandbytes

with without_bitsandbytes():
    import peft
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

if TYPE_CHECKING:
    from tunewright_hf.models.peft import PeftOptions

__all__ = ["also_trained", "ending_in", "fused_experts", "targets"]


def targets(loaded: LoadedModel, candidates: list[str], options: "PeftOptions") -> list[str]:
    """Names of the modules to adapt: leaf names such as q_proj if these mean the same modules, else
    full names.

    candidates: full names of what all-linear stands for. Raises RecipeError if a name matches no
    module, if nothing is left, or if a module shares its weights with another.
    """
    if options.targets == "all-linear":
        wanted, left_alone = set(candidates), (*loaded.adapter_exclude, *options.exclude)
    else:
        every = [name for name, _ in loaded.model.named_modules()]
        wanted = matching(every, options.targets, "adapter.targets")
        # `lm_head` among the targets overrides that heads are left alone
        asked = {
            part
            for part in loaded.adapter_exclude
            if any(within(target, [part]) for target in options.targets)
        }
        kept = (part for part in loaded.adapter_exclude if part not in asked)
        left_alone = (*kept, *options.exclude)
    wanted = {name for name in wanted if not within(name, left_alone)}
    if options.targets == "all-linear":
        wanted -= _rewritten(loaded.model, wanted)
    if not wanted:
        raise RecipeError("no module is left to adapt", place="adapter.targets")
    _check_tied(loaded.model, wanted)
    leaves = sorted({name.rpartition(".")[2] for name in wanted})
    return leaves if ending_in(loaded.model, leaves) == wanted else sorted(wanted)


def also_trained(model: Any, endings: list[str]) -> list[str] | None:
    """Full names for modules_to_save: PEFT would take `norm` for every module whose name ends in
    these letters."""
    every = (name for name, _ in model.named_modules())
    return sorted(matching(every, endings, "adapter.modules_to_save")) or None


def ending_in(model: Any, endings: Iterable[str]) -> set[str]:
    """Full names of the modules that PEFT takes for these targets."""
    every = [name for name, _ in model.named_modules()]
    return {name for name in every if any(f".{name}".endswith(f".{ending}") for ending in endings)}


def fused_experts(model: Any) -> list[str]:
    """Endings of the names of fused experts, for target_parameters: parameters (experts, rows,
    columns). Raises RecipeError if there are none."""
    fused = [
        name for name, p in model.named_parameters() if p.ndim == 3 and within(name, ["experts"])
    ]
    found = {".".join(name.split(".")[-3:]) for name in fused}
    if not found:
        raise RecipeError("the model has no experts", place="adapter.experts")
    return sorted(found)


def _rewritten(model: Any, names: set[str]) -> set[str]:
    """The modules that PEFT would not adapt although they are named.

    In some mixtures of experts it takes the MLPs outside the experts, dense or shared, for the
    experts that they had before transformers 5. It does so wherever an adapter is loaded, so an
    adapter on them would look different to other tools.
    """
    config = peft.LoraConfig(target_modules=set(names))
    convert_peft_config_for_transformers(config, model, None)
    return names - set(config.target_modules)


def _check_tied(model: Any, wanted: set[str]) -> None:
    """Raises RecipeError for an adapter on one of two modules that share their weights: it could
    not be merged."""
    head = model.get_output_embeddings()
    if head is None or head.weight is not model.get_input_embeddings().weight:
        return
    for name, module in model.named_modules():
        if name in wanted and module in (head, model.get_input_embeddings()):
            raise RecipeError(
                f"{name} cannot be adapted: input and output embeddings share their weights",
                place="adapter.targets",
                hint="modules_to_save trains a copy of it",
            )
