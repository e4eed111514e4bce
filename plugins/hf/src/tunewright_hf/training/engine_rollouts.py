"""Rollouts by an inference engine beside the training, such as vLLM, which gets the weights as
files after they have changed."""

import math
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import RecipeError, RowError, RunError
from tunewright.inference import EngineRequest, GenerateRequest, InferenceEngine, Piece
from tunewright.types import LoadedModel, RunContext, StageResult, TrainRequest
from tunewright_hf.models.export import save_result
from tunewright_hf.training.online_rl import PromptsTrainer, train_on_prompts
from tunewright_hf.training.rollouts import Media, Rollout, RolloutGenerator, Sampling
from tunewright_hf.training.stage_trainer import TrainingSetup

__all__ = ["EngineGenerator", "EngineTrainer", "train_with_engine"]

_POLICY = "policy"  # the engine's name of an adapter that is trained
FOLDER = "rollouts"  # below the run folder, with the weights that the engine has read


class EngineGenerator(RolloutGenerator):
    """Generates completions with an engine of the run, in place of the model itself.

    section: {engine, and its options}. Seeds make sampling depend on the step, the row and the
    completion alone, as far as the engine's arithmetic is the same in any batch.
    """

    def __init__(
        self,
        run: RunContext,
        loaded: LoadedModel,
        section: dict[str, Any],
        stop: Sequence[str],
        sampling: Sampling,
    ) -> None:
        super().__init__(loaded, stop, sampling)
        self._run, self._seeded = run, True
        options = dict(section)
        self._name = str(options.pop("engine"))
        self._address = options.get("address")
        try:
            self._caller = run.named("engine", self._name, **options)
        except RecipeError as error:
            raise RecipeError(error.problem, place="stage.rollouts", hint=error.hint) from error
        if run.world_size > 1 and not self._address:
            problem = f"{self._name} is started by one process, and there are {run.world_size}"
            hint = "start it yourself, and give its address"
            raise RecipeError(problem, place="stage.rollouts", hint=hint)
        self._folder = run.folder / FOLDER
        self._engine: InferenceEngine | None = None
        self._model: str | None = None  # the engine's name of the policy
        self._step: int | None = None  # of the weights that the engine has
        self._last: Path | None = None

    def update(self, step: int) -> None:
        if step == self._step:
            return
        trained = StageResult(self._folder / f"step-{step}", self._loaded.saves)
        if self._run.rank == 0:
            save_result(self._loaded, trained.path, self._run.plugin("template"))
        if self._engine is None:
            self._engine = self._open(trained)
        self._engine.update(trained, send=self._run.rank == 0)
        self._step = step
        if self._last and self._run.rank == 0:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = trained.path

    def _open(self, trained: StageResult) -> InferenceEngine:
        """The engine. One that is started gets the first adapter at once, which tells its rank."""
        is_started = trained.saves == "adapter" and not self._address
        adapters = {_POLICY: trained.path} if is_started else {}
        self._model = _POLICY if is_started else None
        request = EngineRequest(
            max_waiting=2**20, adapters=adapters, address=self._address, updates=True
        )
        found: InferenceEngine = self._caller.call("open_engine", run=self._run, request=request)
        return found

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        draws: Sequence[tuple[int, ...]] = (),
        media: Sequence[Media] = (),
        limits: Sequence[int] = (),
    ) -> list[Rollout]:
        """As RolloutGenerator.write, with log-probabilities where the engine gives them. Raises
        RunError if the engine fails, or a prompt has media."""
        assert self._engine is not None, "update comes first"
        if any(media):
            problem = f"{self._name} gets token ids, without media"
            raise RunError(problem, place="stage.rollouts", hint="leave rollouts out")
        most = limits or [self.sampling.max_new_tokens] * len(prompts)
        answers = [
            self._submit(list(prompt), limit, _seed(draw))
            for prompt, limit, draw in zip(prompts, most, draws, strict=True)
        ]
        return [
            answer.rollout(self, list(prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _submit(self, prompt: list[int], limit: int, seed: int) -> "_Answer":
        assert self._engine is not None
        sampling, answer = self.sampling, _Answer(self._name)
        request = GenerateRequest(
            prompt=prompt,
            max_new_tokens=limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=0.0,
            repetition_penalty=1.0,
            seed=seed if self._seeded else None,
            logprobs=0 if "logprobs" in self._engine.features else None,
            model=self._model,
        )
        try:
            self._engine.submit(request, answer)
        except RowError as error:
            if error.place != "seed" or not self._seeded:
                raise RunError(error.problem, place=f"engine {self._name}") from error
            self._seeded = False  # SGLang takes seeds only if it is deterministic
            self._engine.submit(replace(request, seed=None), answer)
        return answer

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._run.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Answer:
    """Listens to one answer."""

    def __init__(self, engine: str) -> None:
        self._engine, self._pieces = engine, list[Piece]()
        self._ended = threading.Event()

    def __call__(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if piece.finish_reason:
            self._ended.set()

    def rollout(self, generator: RolloutGenerator, prompt: list[int]) -> Rollout:
        """The completion, once it has ended. Raises RunError if it failed."""
        self._ended.wait()
        last = self._pieces[-1]
        if last.finish_reason not in ("stop", "length"):
            raise RunError(f"failed: {last.error}", place=f"engine {self._engine}")
        scores = [score for piece in self._pieces for score in piece.tokens]
        if last.stop_token is not None:
            scores.append(last.stop_token)
        found = generator.rollout(prompt, list(last.ids))
        logps = [math.nan if score.logprob is None else score.logprob for score in scores]
        found.logps = logps[: len(found.completion_ids)]
        return found


def _seed(draw: tuple[int, ...]) -> int:
    return int(np.random.default_rng(draw).integers(2**31))


class EngineTrainer(PromptsTrainer):
    """Trains on completions of the model, or of an engine beside it. options: EngineRolloutOptions,
    and the subclass's own."""

    def __init__(self, setup: TrainingSetup, options: Any) -> None:
        super().__init__(setup, options)
        if options.has_engine:
            run, loaded = setup.run, setup.request.loaded
            stop, sampling = run.plugin("template").info.stop, self.writer.sampling
            self.writer = EngineGenerator(run, loaded, options.rollouts, stop, sampling)

    def close(self) -> None:
        """Release the engine."""
        self.writer.close()


def train_with_engine(
    run: RunContext,
    request: TrainRequest,
    options: Any,
    stage: str,
    trainer: Callable[..., EngineTrainer],
    repeats: int = 1,
) -> StageResult:
    """As `train_on_prompts`; the trainer is closed in any case."""
    begun: list[EngineTrainer] = []

    def make(setup: TrainingSetup, options: Any) -> EngineTrainer:
        begun.append(trainer(setup, options))
        return begun[-1]

    try:
        return train_on_prompts(run, request, options, stage, make, repeats)
    finally:
        for each in begun:
            each.close()
