"""Sources whose shares of the training follow their loss: Online Data Mixing (ODM; Albalak et al.
2023, arXiv:2312.02406), a multi-armed bandit after Exp3.

Each optimizer step trains on one source, on all ranks. The paper draws a source for each batch,
which is the same without gradient accumulation.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunewright_hf.batching.batch_sampler import Batches

_SMOOTHING = 0.9  # of the rewards; the paper's alpha


class SourceBandit:
    """Chooses sources by their losses. sources: how many there are.

    With K sources, in step t (0 is the first), source i has the probability
    (1 - K e) exp(e' R_i) / sum_j exp(e' R_j) + e, with e = min(1 / K, sqrt(ln K / (K t))), e' that
    of the step before, and R the moving average of loss / probability of the steps in which the
    source was drawn: what is hard is drawn more, and nothing is never drawn.
    """

    def __init__(self, sources: int, seed: int) -> None:
        self.seed, self.step = seed, 0
        self.rewards = [0.0] * sources
        self.steps = [0] * sources  # in which each was drawn

    def probabilities(self) -> np.ndarray:
        """Probability of each source in the next step."""
        rewards = np.array(self.rewards)
        now, before = self._exploration(self.step), self._exploration(self.step - 1)
        exponents = before * rewards
        weights = np.exp(exponents - exponents.max())
        shares: np.ndarray = (1 - len(rewards) * now) * weights / weights.sum() + now
        return shares / shares.sum()

    def drawn(self) -> int:
        """The source of the next step. Depends on the seed and the state alone."""
        draw = np.random.default_rng([self.seed, self.step]).random()
        cumulated = np.cumsum(self.probabilities())
        return min(int(np.searchsorted(cumulated, draw, side="right")), len(self.rewards) - 1)

    def learn(self, source: int, loss: float) -> None:
        """After a step on this source. A loss that is not finite teaches nothing."""
        if math.isfinite(loss):
            reward = loss / float(self.probabilities()[source])
            old = self.rewards[source]
            self.rewards[source] = _SMOOTHING * old + (1 - _SMOOTHING) * reward
        self.steps[source] += 1
        self.step += 1

    def _exploration(self, step: int) -> float:
        count = len(self.rewards)
        return 1 / count if step <= 0 else min(1 / count, math.sqrt(math.log(count) / count / step))


class OnlineBatches(Batches):
    """Batches of one source per step, chosen when the step begins: the loss of the step before has
    to be known by `learn`. There are as many steps as with all rows in random order.

    sizes: rows of each source, in order. Other arguments as Batches.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        training: Any,
        *,
        sizes: Sequence[int],
        packing: bool = False,
        rank: int = 0,
        world_size: int = 1,
        **_: Any,  # the order and the shared arrays of other batches
    ) -> None:
        share: dict[str, Any] = {"packing": packing, "rank": rank, "world_size": world_size}
        super().__init__(lengths, training, **share)
        self.left_over = 0  # the last step is complete, too
        self.sizes = tuple(sizes)
        self.starts = np.cumsum([0, *self.sizes]).tolist()
        self.bandit = SourceBandit(len(self.sizes), training.seed)
        endless = training.model_copy(update={"max_steps": self.steps})
        parts = zip(self.starts, self.starts[1:], strict=False)
        self._parts = [Batches(self.lengths[start:end], endless, **share) for start, end in parts]
        self.source = -1  # of the step in progress

    def __len__(self) -> int:
        return self.steps * int(self.training.gradient_accumulation_steps)

    def after(self, passes: int) -> Iterator[list[int]]:
        """Row indices of the forward passes from the next step on; `passes` have been done."""
        each = self.training.gradient_accumulation_steps
        streams: dict[int, Iterator[list[int]]] = {}
        for _ in range(passes // each, self.steps):
            source = self.source = self.bandit.drawn()
            if source not in streams:
                streams[source] = self._parts[source].after(self.bandit.steps[source] * each)
            for _ in range(each):
                yield [row + self.starts[source] for row in next(streams[source])]

    def learn(self, loss: float) -> None:
        """After a step. loss: its mean over ranks, the same on all."""
        self.bandit.learn(self.source, loss)

    def trained_rows(self) -> np.ndarray:
        """All rows: which of them are drawn is not known before."""
        return np.arange(len(self.lengths))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"mixed_online": list(self.sizes)}

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        bandit = self.bandit
        return {"step": bandit.step, "rewards": bandit.rewards, "steps": bandit.steps}

    def go_to(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.bandit.step = state["step"]
        self.bandit.rewards, self.bandit.steps = list(state["rewards"]), list(state["steps"])
