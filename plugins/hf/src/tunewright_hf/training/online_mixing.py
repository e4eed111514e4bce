"""Callback that tells the batches of sources which are mixed online the loss of each step."""

from typing import TYPE_CHECKING, Any

from tunewright_hf.batching.online_mixing import OnlineBatches
from tunewright_hf.training.callbacks import TrainingCallback

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop


class OnlineMixing(TrainingCallback):
    """Keeps the shares of sources in checkpoints, and updates them after each step."""

    def __init__(self, batches: OnlineBatches) -> None:
        self._batches = batches

    def on_step_end(self, loop: "TrainingLoop") -> None:
        self._batches.learn(loop.loss)

    def logged(self) -> dict[str, float]:
        """Probability of each source in the next step."""
        shares = self._batches.bandit.probabilities().tolist()
        return {f"data_{number}_share": share for number, share in enumerate(shares)}

    def state_dict(self) -> dict[str, Any]:
        return self._batches.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.go_to(state)
