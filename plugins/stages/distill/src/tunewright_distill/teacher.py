"""The teacher: its model, and the check that its tokens are the student's."""

from pathlib import Path
from typing import Any

from tunewright import RecipeError
from tunewright.events import Notice
from tunewright.types import LoadedModel, RunContext, StageResult, TrainRequest
from tunewright_hf.losses.causal_lm import CausalLoss
from tunewright_hf.training.reference import frozen, load_other


def load_teacher(run: RunContext, request: TrainRequest, options: Any) -> CausalLoss:
    """Load the teacher. Raises RecipeError if its tokenizer is another one.

    A tiny model, as in a --smoke run, has a tokenizer of its own: then a tiny teacher takes the
    place of one that does not fit.
    """
    path, tiny = options.teacher, run.recipe.model == "tiny"
    problem = "is not on this machine"
    if not tiny or Path(path).exists():
        prior = StageResult(Path(path), "model")
        asked = run.load(prior=prior, trainable=False, weights="none")
        problem = difference(asked, request.loaded)
    if problem and not tiny:
        hint = "take a teacher of the model's own line, or train on its answers with sft"
        raise RecipeError(f"{path} {problem}", place="stage.teacher", hint=hint)
    if problem and path != "tiny":
        message = f"a tiny model is the teacher in place of {path}, which {problem}"
        run.emit(Notice(message=message))
        path = "tiny"
    return CausalLoss(frozen(load_other(run, path, options.teacher_quantizer), request).model)


def difference(teacher: LoadedModel, student: LoadedModel) -> str:
    """Difference between the tokens of two tokenizers; empty if there is none."""
    theirs, ours = (each.tokenizer.get_vocab() for each in (teacher, student))
    if theirs == ours:
        return ""
    differ = {each for each in theirs.keys() | ours.keys() if theirs.get(each) != ours.get(each)}
    token = min(differ, key=lambda each: (ours.get(each, len(ours)), each))
    numbers = (str(each.get(token, "missing")) for each in (theirs, ours))
    return (
        "has another tokenizer: {!r} is {} there and {} here".format(token, *numbers)
        + f" ({len(differ):,} tokens differ)"
    )
