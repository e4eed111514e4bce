"""Group relative policy optimization, on prompts and reward functions."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tunewright import Problem, RecipeError, hookimpl
from tunewright.types import RunContext, StageResult, TrainRequest
from tunewright_grpo import environments
from tunewright_grpo.environments import LoadedEnvironment
from tunewright_hf.training.rollout_options import EngineRolloutOptions, EngineRolloutStage

#: options that mean something for single losses only
_OF_LOSSES = {
    "epsilon": ("dapo", "grpo", "dr_grpo"),
    "epsilon_high": ("dapo", "grpo", "dr_grpo", "cispo"),
    "delta": ("dapo", "grpo", "dr_grpo"),
    "sapo_temperature_pos": ("sapo",),
    "sapo_temperature_neg": ("sapo",),
}


class Grpo(EngineRolloutStage):
    """Generate several completions per prompt, score them, and make those above their group's mean
    likelier (GRPO, Shao et al. 2024, arXiv:2402.03300, and what followed: Dr. GRPO, DAPO, GSPO,
    CISPO, SAPO, RLOO, REINFORCE++).

    With num_iterations 1, each step trains once on completions of the current policy: probability
    ratios are 1, and nothing is clipped. With more, the completions are trained on again, and
    ratios to the policy that generated them are clipped.
    """

    class Options(EngineRolloutOptions):
        rewards: list[str | dict[str, Any]] = Field(examples=[[{"name": "length", "target": 20}]])
        """Reward plugins: a name, or a mapping with name, weight (default: 1) and options. The
        reward of a completion is their weighted sum. Two further keys: time_limit, the seconds that
        a call may take (default: any), and late, what a longer one is: an error (default), or none,
        which leaves this reward out. On the command line, and only there, a name may be that of a
        function in a file: mine.py:brief. Empty where an environment alone gives rewards."""
        environment: str | dict[str, Any] | None = Field(None, examples=["calculator"])
        """Environment that answers the model's turns, which makes a completion an episode: a name,
        or a mapping with name, options, max_turns (default: 8) and weight, that of the
        environment's reward beside the other rewards (default: 1). On the command line, and only
        there, the name of a file of functions, which become tools (tools.py), or of a class in a
        file (game.py:Game). Default: none; a completion is one turn."""
        importance_cap: float | None = Field(None, gt=0)
        """Largest ratio of a token's probability under the trained model to that under the engine
        of rollouts, by which its loss is multiplied (truncated importance sampling). Default: 2."""
        num_generations: int = Field(8, ge=1)
        """Completions per prompt, which make up a group."""
        num_iterations: int = Field(1, ge=1)
        """Optimizer steps per rollout. training.max_steps counts them all, and is rounded up to a
        multiple of it."""
        loss: Literal["dapo", "grpo", "dr_grpo", "cispo", "sapo"] = "dapo"
        """dapo, grpo and dr_grpo clip ratios, and differ in how the loss is averaged. dapo: over
        all tokens of a step (arXiv:2503.14476). grpo: over each completion's tokens, then over
        completions, which favours short ones. dr_grpo: over max_new_tokens of every completion
        (arXiv:2503.20783). cispo: the gradient of log-probabilities, weighted by clipped ratios and
        averaged as dapo, so that no token loses its gradient (arXiv:2506.13585). sapo: a smooth
        gate of the ratio in place of clipping, averaged as grpo (arXiv:2511.20347)."""
        importance_sampling_level: Literal["token", "sequence"] = "token"
        """Ratio of each token, or the geometric mean of them over the completion (GSPO,
        arXiv:2507.18071), for the losses grpo and sapo."""
        epsilon: float | None = Field(None, gt=0, lt=1)
        """Ratios are clipped below 1 - epsilon. Default: 0.2."""
        epsilon_high: float | None = Field(None, gt=0)
        """Ratios are clipped above 1 + epsilon_high; above epsilon for exploration (DAPO's
        clip-higher: 0.28). Default: epsilon. With the loss cispo: the largest ratio itself,
        default: 5."""
        delta: float | None = Field(None, gt=1)
        """Largest ratio where the advantage is negative, which clipping leaves open (two-sided
        clipping, arXiv:2505.07291). Default: none."""
        sapo_temperature_pos: float | None = Field(None, gt=0)
        """Temperature of sapo's gate where the advantage is positive. Default: 1."""
        sapo_temperature_neg: float | None = Field(None, gt=0)
        """Temperature of sapo's gate elsewhere: higher closes it sooner. Default: 1.05."""
        advantage: Literal[
            "group", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"
        ] = "group"
        """Advantage of a completion. group: its reward minus the mean of its group. rloo: minus the
        mean of the others (arXiv:2402.14740). reinforce_plus_plus: the reward itself, normalized
        over all tokens of the step; one completion per prompt is enough (arXiv:2501.03262).
        reinforce_plus_plus_baseline: that of group, normalized likewise."""
        scale_rewards: Literal["group", "batch", "none"] | None = None
        """Divisor of advantages. group: the standard deviation of their group. batch: that
        of all rewards of the step (arXiv:2508.08221). none: nothing (arXiv:2503.20783). Default:
        group with the advantage group, else none."""
        dynamic_sampling: int = Field(0, ge=0)
        """How often groups whose rewards are all alike, which teach nothing, are replaced by those
        of other prompts; those that are left do not count in the loss (DAPO, arXiv:2503.14476). 0:
        they are trained on as they are."""
        overlong_buffer: int = Field(0, ge=0)
        """Tokens before max_new_tokens in which the reward of a completion falls by up to
        overlong_penalty (DAPO, arXiv:2503.14476). 0: length does not count."""
        overlong_penalty: float | None = Field(None, gt=0)
        """Penalty of a completion of max_new_tokens. Default: 1."""
        entropy_weight: float = Field(0.0, ge=0)
        """Weight of an entropy bonus, averaged as the loss is, for exploration."""
        mask_truncated: bool = False
        """Exclude completions that were truncated at max_new_tokens from the loss."""
        beta: float = Field(0.0, ge=0)
        """Weight of the KL divergence from the reference, estimated per token (k3). 0: no reference
        is loaded."""
        unbiased_kl: bool = False
        """Multiply the divergence of each token by its probability ratio, which makes the gradient
        that of the reverse KL divergence (DeepSeek-V3.2, arXiv:2512.02556)."""
        kl_in_reward: bool = False
        """Subtract beta times the divergence (k1) from the rewards, as RLOO and REINFORCE++ do, in
        place of adding it to the loss: of the whole completion, with reinforce_plus_plus of each
        token."""

        @model_validator(mode="after")
        def _fits(self) -> "Grpo.Options":
            for problem in self._problems():
                raise ValueError(problem)
            return self

        def _problems(self) -> Iterator[str]:
            """Options that mean nothing beside the others."""
            for name, losses in _OF_LOSSES.items():
                if getattr(self, name) is None:
                    continue
                if self.loss not in losses:
                    those = ", ".join(losses)
                    yield f"{name} does nothing for the loss {self.loss}: it is for {those}"
                if self.num_iterations == 1:
                    yield _once(name)
            if self.num_iterations == 1:
                if self.loss in ("cispo", "sapo"):
                    yield _once(f"the loss {self.loss}")
                if self.importance_sampling_level == "sequence":
                    yield _once("importance_sampling_level: sequence")
            if self.importance_sampling_level == "sequence" and self.loss not in ("grpo", "sapo"):
                yield (
                    "importance_sampling_level: sequence is for the losses grpo and sapo, which "
                    "take the mean over completions"
                )
            if self.delta is not None and self.delta <= 1 + self.clip_high:
                yield f"delta must be above 1 + epsilon_high, which is {1 + self.clip_high:g}"
            if self.loss == "cispo" and self.clip_high < 1:
                yield "epsilon_high is the largest ratio of cispo: expected 1 or more"
            yield from self._problems_of_rollouts()
            if self.importance_cap is not None and not self.has_engine:
                yield "importance_cap does nothing without rollouts by vllm, which it corrects"
            if not self.rewards and self.environment is None:
                yield "rewards: expected at least one, or an environment that gives rewards"

        def _problems_of_rollouts(self) -> Iterator[str]:
            alone = self.advantage == "reinforce_plus_plus"
            if self.num_generations == 1 and not alone:
                yield "num_generations: expected 2 or more, which are compared with each other"
            if self.num_generations == 1 and self.dynamic_sampling:
                yield "dynamic_sampling compares the completions of a prompt: num_generations is 1"
            if self.scale_rewards and self.advantage.startswith("reinforce_plus_plus"):
                how = self.advantage
                yield f"scale_rewards does nothing for the advantage {how}, which is normalized"
            for name in ("kl_in_reward", "unbiased_kl"):
                if getattr(self, name) and not self.beta:
                    yield f"{name} needs a beta above 0"
            if self.unbiased_kl and self.kl_in_reward:
                yield "unbiased_kl does nothing with kl_in_reward, whose divergence has no gradient"
            if self.overlong_buffer > self.max_new_tokens:
                yield f"overlong_buffer is more than max_new_tokens, {self.max_new_tokens}"
            if self.overlong_penalty is not None and not self.overlong_buffer:
                yield "overlong_penalty does nothing without overlong_buffer"

        @field_validator("environment")
        @classmethod
        def _there(cls, section: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
            if section is not None:
                environments.check(section)
            return section

        def open_environment(self, run: RunContext, stage: int) -> LoadedEnvironment | None:
            """The environment. stage: number of the stage, 0 is the first. Raises RecipeError."""
            if self.environment is None:
                return None
            at = ("stages", stage, "environment")
            named = environments.is_named(self.environment, run.from_command_line, at)
            return environments.load(self.environment, run, from_command_line=named)

        @property
        def clip_low(self) -> float:
            """epsilon, or its default."""
            return 0.2 if self.epsilon is None else self.epsilon

        @property
        def clip_high(self) -> float:
            """epsilon_high, or its default."""
            if self.epsilon_high is not None:
                return self.epsilon_high
            return 5.0 if self.loss == "cispo" else self.clip_low

        @property
        def gate_temperatures(self) -> tuple[float, float]:
            """Of sapo, where the advantage is positive and elsewhere."""
            return self.sapo_temperature_pos or 1.0, self.sapo_temperature_neg or 1.05

        @property
        def scale(self) -> str:
            """scale_rewards, or its default."""
            return self.scale_rewards or ("group" if self.advantage == "group" else "none")

    def objections(self, recipe: Any) -> Iterator[Problem]:
        yield from super().objections(recipe)
        if self.options.environment is not None:
            yield from environments.objections(
                self.options.environment, recipe.source, (*self.at, "environment")
            )

    def tools(self, run: RunContext) -> list[dict[str, Any]] | None:
        environment = self.options.open_environment(run, int(self.at[1]))
        if environment is None:
            return None
        try:
            tools = environment.plugin.tools()
        finally:
            environment.plugin.close()
        form = run.plugin("template").info.reply
        if tools and not (form.call or form.python):
            hint = "take a template with tool calls, such as qwen3"
            raise RecipeError("has no form for tool calls", place="template", hint=hint)
        return tools

    @hookimpl
    def train_stage(self, run: RunContext, request: TrainRequest) -> StageResult:
        from tunewright_grpo.training import GrpoTrainer
        from tunewright_hf.training.engine_rollouts import train_with_engine

        repeats = self.options.num_iterations
        return train_with_engine(run, request, self.options, self.name, GrpoTrainer, repeats)


def _once(what: str) -> str:
    return (
        f"{what} does nothing with num_iterations: 1, where the policy is the one that generated "
        "the completions (num_iterations: 2 or more trains on them again)"
    )
