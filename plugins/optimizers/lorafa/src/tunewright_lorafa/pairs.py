"""Pairs of matrices that PEFT's LoRA-FA steps together."""

import re
from typing import Any

from peft.optimizers.lorafa import LoraFAOptimizer as PeftLoraFAOptimizer
from torch import Tensor

from tunewright.types import OptimizerRequest
from tunewright_hf.training.param_groups import parameter_groups

_A = re.compile(r"^(.*)\.lora_A\.([^.]+)\.weight$")


def groups_of(request: OptimizerRequest) -> list[dict[str, Any]]:
    """A group per pair (A, B), whose A is frozen, then groups of all other parameters.

    PEFT recognises a pair by "lora" in the parameter names, and expects A before B.
    """
    parameters = dict(request.parameters)
    pairs, scales = [], request.learning_rate_scales
    for name in list(parameters):
        found = _A.match(name)
        other = name.replace(".lora_A.", ".lora_B.")
        if not found or other not in parameters:
            continue
        a, b = parameters.pop(name), parameters.pop(other)
        a.requires_grad_(False)
        factor = request.model.get_submodule(found[1]).scaling[found[2]]
        pair = {"params": [a, b], "names": [name, other], "scaling_factors": [factor, factor]}
        rate = request.learning_rate * scales.get(other, 1.0)
        pairs.append({**pair, "lr": rate, "weight_decay": request.weight_decay})
    names = {id(each): name.replace("lora", "other") for name, each in parameters.items()}
    rest = OptimizerRequest(
        list(parameters.items()),
        request.model,
        request.learning_rate,
        request.weight_decay,
        scales,
    )
    others = parameter_groups(rest)
    for group in others:
        group["names"] = [names[id(each)] for each in group["params"]]
        group["scaling_factors"] = [1.0] * len(group["params"])
    return sorted([*pairs, *others], key=lambda group: group["lr"] != request.learning_rate)


class LoraFAOptimizer(PeftLoraFAOptimizer):  # type: ignore[misc]
    """PEFT's optimizer; its states, kept by name, are loaded to the device of their parameter."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        device = self.param_groups[0]["params"][0].device
        for state in self.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    state[name] = value.to(device)
