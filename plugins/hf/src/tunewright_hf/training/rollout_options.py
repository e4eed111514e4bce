"""Options of stages that generate completions during training. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from tunewright import Problem, RecipeError, Stage
from tunewright.recipe import Section
from tunewright.resolved import choose
from tunewright.source import Source
from tunewright.types import ModelRole
from tunewright_hf.training.reference_options import ReferenceModel
from tunewright_hf.training.rewards import check, columns, missing, untrusted

__all__ = [
    "EngineRolloutOptions",
    "EngineRolloutStage",
    "RolloutOptions",
    "RolloutStage",
]


class RolloutOptions(ReferenceModel):
    rewards: list[str | dict[str, Any]] = Field(
        min_length=1, examples=[[{"name": "length", "target": 20}]]
    )
    """Reward plugins: a name, or a mapping with name, weight (default: 1) and options. The reward
    of a completion is their weighted sum. Two further keys: time_limit, the seconds that a call may
    take (default: any), and late, what a longer one is: an error (default), or none, which leaves
    this reward out. On the command line, and only there, a name may be that of a function in a
    file: mine.py:brief."""
    max_new_tokens: int = Field(256, ge=1)
    """Maximum tokens of a completion."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of completions. The policy is trained at temperature 1."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: sample from the most likely tokens whose probabilities add up to this. 1:
    from all."""
    top_k: int = Field(0, ge=0)
    """Sample from so many of the most likely tokens. 0: from all."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the reference. 0: no reference is loaded."""

    @field_validator("rewards")
    @classmethod
    def _known(cls, rewards: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        for section in rewards:
            check(section)
        return rewards

    @model_validator(mode="after")
    def _needs_beta(self) -> "RolloutOptions":
        if self.reference != "start" and not self.beta:
            raise ValueError("reference does nothing without beta, the weight of the divergence")
        return self


class RolloutStage(Stage):
    """A stage whose Options are RolloutOptions."""

    rows = "prompts"
    eval_metrics = ("loss", "reward", "completions/mean_length")

    def objections(self, recipe: Any) -> Iterator[Problem]:
        """Rewards whose options are wrong, and columns that they need and no record has."""
        kind, number = self.at[:2]
        assert kind == "stages" and isinstance(number, int)
        stage, dataset = recipe.stages[number], recipe.choices["dataset"].make()
        seen: set[str] | None = None
        for index, section in enumerate(self.options.rewards):
            at = (*self.at, "rewards", index)
            problem, hint = untrusted(section, recipe.source.from_command_line(*at, "name"))
            if problem:
                yield Problem(at, problem, hint)
                continue
            try:
                needed = columns(section)
            except RecipeError as error:
                yield Problem(at, error.problem, error.hint)
                continue
            if needed and seen is None and recipe.looked:
                root = Path(recipe.recipe.data_root)
                records = [r for each in stage.data for r in dataset.first_records(each, root)]
                seen = {"prompts"}.union(*(r for r in records if isinstance(r, dict)))
            name = section if isinstance(section, str) else section["name"]
            problem, hint = missing(name, needed, seen or needed)
            if problem and len(seen or ()) > 1:
                yield Problem(at, problem, hint)

    @property
    def models(self) -> tuple[ModelRole, ...]:  # type: ignore[override]
        """Needs a reference only if it is a separate model."""
        second = self.options.beta and self.options.reference == "start"
        return ("policy", "reference") if second else ("policy",)


class EngineRolloutOptions(RolloutOptions):
    rollouts: dict[str, Any] | None = Field(None, examples=[{"engine": "vllm"}])
    """Engine that generates completions: {engine: hf} is the trained model itself; {engine: vllm}
    and {engine: sglang}, with that engine's options, run beside the training, and get the trained
    weights as files before each rollout. Default: hf."""

    @field_validator("rollouts")
    @classmethod
    def _names_an_engine(cls, section: dict[str, Any] | None) -> dict[str, Any] | None:
        if section is not None and not isinstance(section.get("engine"), str):
            raise ValueError("expected the name of an engine: {engine: vllm}")
        return section

    @property
    def has_engine(self) -> bool:
        """Whether another engine than the trained model generates completions."""
        return self.rollouts is not None and self.rollouts.get("engine") != "hf"


class EngineRolloutStage(RolloutStage):
    """A stage whose Options are EngineRolloutOptions."""

    artifacts = (*RolloutStage.artifacts, "rollouts")

    def objections(self, recipe: Any) -> Iterator[Problem]:
        """As RolloutStage.objections, and problems of the engine of rollouts."""
        yield from super().objections(recipe)
        if self.options.rollouts is not None:
            yield from self._problems_of_engine(self.options.rollouts, recipe)

    def _problems_of_engine(self, section: dict[str, Any], recipe: Any) -> Iterator[Problem]:
        at, options = (*self.at, "rollouts"), dict(section)
        name = options.pop("engine")
        if name == "hf":  # the trained model itself, which is not opened as an engine
            if options:
                yield Problem(at, f"{', '.join(options)}: the engine hf has no options here")
            return
        for choice in recipe.lists.get("accelerator", ()):
            if getattr(choice.plugin, "shards", False):
                problem = f"{name} gets weights that one rank holds, and {choice.entry.name} shards"
                yield Problem(at, problem, "leave rollouts out: the model itself generates")
        try:
            written = Section(name=name, **options)
            engine = choose("engine", written, Source(f"engine {name}"), ()).make()
            engine.at = at
            yield from engine.update_objections(recipe)
        except RecipeError as error:
            yield Problem(at, error.problem, error.hint)
