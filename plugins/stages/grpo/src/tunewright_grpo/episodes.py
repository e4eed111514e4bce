"""Episodes: completions of several turns, which an environment answers."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunewright import RunError, TunewrightError
from tunewright.types import Message
from tunewright_grpo.environment import Observation, ResetRequest, Start, StepRequest
from tunewright_grpo.environments import LoadedEnvironment
from tunewright_grpo.turns import TurnEncoder
from tunewright_hf.templates.saved_conversation import COLUMN, from_json
from tunewright_hf.training.rollouts import Media, Rollout, RolloutGenerator

_THREADS = 16  # of an environment that answers several episodes at the same time


@dataclass(eq=False)
class _Episode:
    """An episode, and what there is of it."""

    draw: tuple[int, ...]
    media: Media
    prompt: list[int] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    state: Any = None
    ids: list[int] = field(default_factory=list)  # after the prompt
    given: list[tuple[int, int]] = field(default_factory=list)  # [start, end) of ids: not generated
    messages: list[Message] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)  # of ids; NaN: unknown
    text: str = ""  # of the last turn
    scored: bool = False  # whether any of them is known
    running: bool = True
    finished: bool = False
    reward: float | None = None

    def rollout(self) -> Rollout:
        return Rollout(
            self.prompt,
            self.ids,
            self.text,
            self.finished,
            self.media,
            self.given,
            self.messages,
            self.reward,
            self.logps if self.scored else (),
        )


class Episodes:
    """Generates episodes, all of a batch turn by turn. max_new_tokens: of an episode after its
    prompt, what the environment says included."""

    def __init__(
        self,
        environment: LoadedEnvironment,
        writer: RolloutGenerator,
        turns: TurnEncoder,
        max_new_tokens: int,
    ) -> None:
        self._environment, self._writer, self._turns = environment, writer, turns
        self._most = max_new_tokens
        self._place = f"environment {environment.name}"

    def write(
        self, rows: Sequence[dict[str, Any]], draws: Sequence[tuple[int, ...]]
    ) -> list[Rollout]:
        """One episode for each row. draws: seeds of each one's random numbers; episodes of one
        prompt share the first three. Raises RunError if the environment fails."""
        episodes = [
            _Episode(draw, row.get("media") or ()) for row, draw in zip(rows, draws, strict=True)
        ]
        begun: list[_Episode] = []
        try:
            for episode, row in zip(episodes, rows, strict=True):
                self._begin(episode, row)
                begun.append(episode)
            last = self._environment.max_turns - 1
            for turn in range(last + 1):
                running = [episode for episode in episodes if episode.running]
                if not running:
                    break
                self._generate(running, turn)
                self._answer([each for each in running if each.running], goes_on=turn < last)
        finally:
            self._finish(begun, complete=len(begun) == len(episodes))
        return [episode.rollout() for episode in episodes]

    def _begin(self, episode: _Episode, row: dict[str, Any]) -> None:
        conversation = from_json(row[COLUMN]) if row[COLUMN] else None
        columns = {name: row[name] for name in row if name not in ("prompt_ids", "media", COLUMN)}
        seed = int(np.random.default_rng(episode.draw[:3]).integers(2**31))
        with self._blamed():
            start: Start = self._environment.reset(ResetRequest(columns, seed))
        episode.state, episode.prompt = start.episode, list(row["prompt_ids"])
        if conversation:
            episode.tools = conversation.tools
        if start.text:
            if conversation is None:
                problem = "shows a text at the beginning, and the prompt has media: it cannot"
                raise RunError(problem, place=self._place)
            last = conversation.messages[-1]
            seen = "\n\n".join(filter(None, (str(last.content), start.text)))
            conversation.messages[-1] = replace(last, content=seen)
            episode.prompt = self._turns.prompt(conversation)

    def _generate(self, running: Sequence[_Episode], turn: int) -> None:
        """One more turn of the model in each."""
        written = self._writer.write(
            [episode.prompt + episode.ids for episode in running],
            [(*episode.draw, turn) if turn else episode.draw for episode in running],
            [episode.media for episode in running],
            [self._most - len(episode.ids) for episode in running],
        )
        for episode, turn_ in zip(running, written, strict=True):
            episode.ids += turn_.completion_ids
            episode.scored |= bool(turn_.logps)
            episode.logps += turn_.logps or [math.nan] * len(turn_.completion_ids)
            episode.text = turn_.text
            episode.messages.append(self._turns.message(turn_.completion_ids, episode.tools))
            episode.running = turn_.finished

    def _answer(self, running: Sequence[_Episode], goes_on: bool) -> None:
        """Let the environment answer the turn. goes_on: False after the last turn that may be."""
        requests = [
            StepRequest(episode.state, episode.messages[-1], episode.text) for episode in running
        ]
        with self._blamed():
            seen = list(self._steps(requests))
        for episode, observation in zip(running, seen, strict=True):
            if not observation.messages:
                episode.running, episode.finished = False, True
                continue
            answer = episode.messages[-1]
            ids = self._turns.following(answer, observation.messages, episode.tools)
            # no turn, or no token, is left for an answer
            if not goes_on or len(episode.ids) + len(ids) >= self._most:
                episode.running = False
                continue
            episode.given.append((len(episode.ids), len(episode.ids) + len(ids)))
            episode.ids += ids
            episode.logps += [math.nan] * len(ids)
            episode.messages += observation.messages

    def _steps(self, requests: Sequence[StepRequest]) -> Iterator[Observation]:
        if not self._environment.plugin.concurrent or len(requests) < 2:
            yield from map(self._environment.step, requests)
            return
        with ThreadPoolExecutor(min(_THREADS, len(requests))) as pool:
            yield from pool.map(self._environment.step, requests)

    def _finish(self, begun: Sequence[_Episode], complete: bool) -> None:
        """End the episodes, with their rewards. complete: False if an error ends them."""
        for episode in begun:
            with suppress(Exception) if not complete else self._blamed():
                found = self._environment.plugin.finish(episode.state)
                if found is not None:
                    episode.reward = self._environment.weight * float(found)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Give the environment's errors its name."""
        try:
            yield
        except TunewrightError:
            raise
        except Exception as error:
            raise RunError(f"fails: {type(error).__name__}: {error}", place=self._place) from error
