"""Runs whose policy is not that of a run folder's last stage."""

from pathlib import Path
from typing import Any

import torch

from tunewright import RecipeError, RunError
from tunewright.check import Resolved
from tunewright.context import Run
from tunewright.recipe import Section
from tunewright.types import DataRequest, Embedding, Head, LoadedModel, StageResult, Weights
from tunewright_hf.checkpoints.folder import is_complete
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.models import hub, template_signs
from tunewright_hf.models.errors import one_line
from tunewright_hf.predictions.identity import files_digest, run_digest

__all__ = ["AdapterRun", "CheckpointRun", "OpenedRun", "policy_digest"]

#: PEFT's initialisations that leave the model's own weights alone, besides True and False
_HARMLESS = ("gaussian", "orthogonal")


class OpenedRun(Run):
    """A run whose policy is the recipe's model, or a result that was given.

    number: of the stage that has trained it, 0 is the first; None: none of the recipe's.
    pair_prompt: of a reranker that no stage has trained.
    """

    def __init__(
        self,
        resolved: Resolved,
        result: StageResult | None,
        head: Head,
        number: int | None = None,
        pair_prompt: str = "",
        **how: Any,
    ) -> None:
        super().__init__(resolved, **how)
        self._pair_prompt = pair_prompt
        self._result, self._head, self._trained_by = result, head, number

    @property
    def trained(self) -> StageResult | None:
        return self._result

    @property
    def policy_head(self) -> Head:
        return self._head

    @property
    def embedding(self) -> Embedding:
        if self._trained_by is None:
            return Embedding(pair_prompt=self._pair_prompt)
        found: Embedding = self.stage(self._trained_by).embedding
        return found

    def policy_folders(self) -> list[Path]:
        """Folders whose files make the policy. Raises RunError if the model is not to be had."""
        found = [self._result.path] if self._result else []
        if self.recipe.model != "tiny" and not (self._result and self._result.saves == "model"):
            revision = getattr(self.plugin("family").options, "revision", None)
            found.append(hub.locate(self.recipe.model, revision))
        return found

    def data_request(
        self, loaded: LoadedModel, number: int = 0, limit: int | None = None
    ) -> DataRequest:
        """As Run.data_request. Without a recipe there is no data, and rows are conversations."""
        if self.resolved.stages:
            return super().data_request(loaded, number, limit)
        training = self.recipe.training
        asked = DataRequest([], {}, "messages", loaded, training.max_length, training.seed)
        asked.limit = limit
        return asked


def policy_digest(run: Run) -> str:
    """Digest of what `run.load_policy` loads, before the command line's changes. Raises RunError if
    a model is not to be had."""
    if not isinstance(run, OpenedRun):
        return run_digest(run.folder)
    run.load(weights="none")  # which finds the family, and the template
    template = run.template and run.template.model_dump(mode="json")
    return files_digest([run.recipe.model, template], run.policy_folders())


class AdapterRun(OpenedRun):
    """An adapter that stands alone. A chat template beside it is the one that it was trained with,
    and goes before the base model's."""

    def load(
        self,
        *,
        head: Head = "causal_lm",
        prior: StageResult | None = None,
        trainable: bool = True,
        weights: Weights = "load",
    ) -> LoadedModel:
        """Run.load, also for engines that load the tokenizer alone."""
        assert self._result is not None
        file, own = self._result.path / "chat_template.jinja", None
        if "template" not in self.resolved.choices and file.is_file():
            with one_line("cannot be read", str(file)):
                own = file.read_text(encoding="utf-8")
            known = template_signs.exported(own, [], None) or template_signs.FoundTemplate("auto")
            self.use("template", Section(name=str(known.name), **known.options))
        loaded = super().load(head=head, prior=prior, trainable=trainable, weights=weights)
        if own is not None:
            loaded.tokenizer.chat_template = own
        return loaded


class CheckpointRun(OpenedRun):
    """A checkpoint: the weights in it are loaded into the model with which its stage began."""

    def __init__(
        self,
        resolved: Resolved,
        prior: StageResult | None,
        head: Head,
        checkpoint: Path,
        **how: Any,  # as OpenedRun
    ) -> None:
        super().__init__(resolved, prior, head, **how)
        self._checkpoint = checkpoint

    @property
    def trained(self) -> StageResult | None:
        problem = "is the state of a training, which this engine cannot load"
        raise RecipeError(problem, place=str(self._checkpoint), hint="use the engine hf")

    def policy_folders(self) -> list[Path]:
        return [self._checkpoint, *super().policy_folders()]

    def load_policy(self, head: Head = "causal_lm") -> LoadedModel:
        place = str(self._checkpoint)
        if head != self._head:
            raise RecipeError(f"is of a model with the head {self._head}", place=place)
        if not is_complete(self._checkpoint):
            raise RunError("is not complete", place=place)
        loaded = self.load(head=head, prior=self._result)
        _check_beginning(loaded.model, place)
        with one_line("is no checkpoint of this version", place, ""):
            weights = load_state(self._checkpoint, "weights")
            _load(loaded, weights, place)
        loaded.model.eval().requires_grad_(False)
        return loaded


def _check_beginning(model: Any, place: str) -> None:
    """Refuse adapters that change the model's own weights when they begin: these are in no
    checkpoint."""
    for config in getattr(model, "peft_config", {}).values():
        init = getattr(config, "init_lora_weights", True)
        if isinstance(init, str) and init not in _HARMLESS:
            problem = f"its adapter began with init {init}, which changes the model's own weights"
            hint = "finish the training, or save_steps with another init"
            raise RecipeError(problem, place=place, hint=hint)


def _load(loaded: LoadedModel, weights: dict[str, torch.Tensor], place: str) -> None:
    parameters = dict(loaded.model.named_parameters())
    strange = [
        name
        for name, value in weights.items()
        if name not in parameters or parameters[name].shape != value.shape
    ]
    if differing := [*strange, *sorted((loaded.trained or set()) - weights.keys())]:
        problem = f"is of another model: {differing[0]} is not in both, or of another shape"
        hint = "keep the model and the adapter that it began with"
        raise RunError(problem, place=place, hint=hint)
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
