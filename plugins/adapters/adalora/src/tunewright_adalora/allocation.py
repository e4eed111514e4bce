"""Prunes ranks while a training goes."""

from typing import TYPE_CHECKING, Any

import torch

from tunewright import RecipeError
from tunewright_hf.training.callbacks import TrainingCallback

if TYPE_CHECKING:
    from tunewright_adalora import AdaLora
    from tunewright_hf.training.loop import TrainingLoop


class RankAllocation(TrainingCallback):
    """Gives PEFT's rank allocator its steps, and adds the penalty's gradient.

    PEFT adds the penalty to the loss that the model itself computes, which our losses are not.
    """

    def __init__(self, model: Any, options: "AdaLora.Options") -> None:
        self.model, self.options = model, options
        self.config = model.peft_config["default"]
        self.allocator = model.base_model.rankallocator

    def on_step_begin(self, loop: "TrainingLoop") -> None:
        steps = loop.total_steps
        if self.config.total_step == steps:
            return
        warmup, final = int(self.options.warmup * steps), int(self.options.final * steps)
        if warmup + 1 >= steps - final:  # PEFT counts importance in the steps between
            raise RecipeError(
                f"adalora has no step in which to prune ranks: the stage has {steps}",
                place="adapter",
                hint="train longer, or set a smaller warmup and final",
            )
        self.config.tinit, self.config.tfinal = warmup, final
        self.allocator.set_total_step(steps)

    def on_gradients_ready(self, loop: "TrainingLoop") -> None:
        weight = self.options.orthogonality
        if not weight:
            return
        scaler = loop.accelerator.scaler
        matrices = [
            (each, each if "lora_A" in name else each.T)
            for name, each in self.model.named_parameters()
            if ("lora_A" in name or "lora_B" in name) and each.grad is not None
        ]
        scale = weight / len(matrices) * (scaler.get_scale() if scaler else 1.0)
        for parameter, rows in matrices:  # rows (rank, n): orthonormal where the penalty is 0
            with torch.enable_grad():
                gram = rows @ rows.T
                penalty = torch.norm(gram - torch.eye(len(gram), device=gram.device))
            (gradient,) = torch.autograd.grad(penalty, parameter)
            parameter.grad.add_(gradient, alpha=scale)  # type: ignore[union-attr]

    def on_step_end(self, loop: "TrainingLoop") -> None:
        self.model.base_model.update_and_allocate(loop.step)

    def state_dict(self) -> dict[str, Any]:
        """Importance of all values, and which ranks are left."""
        allocator = self.allocator
        return {
            "importance": allocator.ipt,
            "mean": allocator.exp_avg_ipt,
            "uncertainty": allocator.exp_avg_unc,
            "ranks": self.config.rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.model.device
        kept = {
            name: {key: value.to(device) for key, value in state[name].items()}
            for name in ("importance", "mean", "uncertainty")
        }
        self.allocator.ipt = kept["importance"]
        self.allocator.exp_avg_ipt = kept["mean"]
        self.allocator.exp_avg_unc = kept["uncertainty"]
        self.config.rank_pattern = state["ranks"]
