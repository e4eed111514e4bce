"""AdamW with 8-bit or 4-bit states."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tunewright_adamw import AdamW


def build(options: "AdamW.Options", groups: list[dict[str, Any]], settings: Any) -> Any:
    """Build the optimizer of bitsandbytes or torchao."""
    if options.library == "bitsandbytes":
        from bitsandbytes.optim import AdamW, AdamW8bit

        made = AdamW8bit if options.bits == 8 else AdamW
        return made(groups, is_paged=options.paged, **settings)
    from torchao import optim

    name = "AdamWFp8" if options.fp8 else f"AdamW{options.bits}bit"
    return _of_plain_tensors(getattr(optim, name))(groups, **settings)


def _of_plain_tensors(optimizer: type[Any]) -> type[Any]:
    """torchao's optimizer with states as plain tensors instead of its tensor subclasses, which a
    checkpoint cannot hold."""

    class Plain(optimizer):  # type: ignore[misc]
        def state_dict(self) -> dict[str, Any]:
            saved = super().state_dict()
            saved["state"] = {
                number: {name: _parts(value) for name, value in state.items()}
                for number, state in saved["state"].items()
            }
            return saved  # type: ignore[no-any-return]

        @torch.no_grad()
        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict({**state_dict, "state": {}})
            parameters = [each for group in self.param_groups for each in group["params"]]
            for number, state in state_dict["state"].items():
                parameter = parameters[number]
                for name, value in state.items():
                    if isinstance(value, dict):
                        # a new buffer, filled with the saved values
                        made = self._new_buffer(parameter, signed=name == "exp_avg")
                        for part, values in value.items():
                            getattr(made, part).copy_(values)
                        self.state[parameter][name] = made
                    else:
                        device = "cpu" if name == "step" else parameter.device
                        self.state[parameter][name] = value.to(device)

    return Plain


def _parts(value: Any) -> Any:
    """Tensors of a tensor subclass, by name."""
    if not isinstance(value, Tensor) or type(value) is Tensor:
        return value
    names, _ = value.__tensor_flatten__()  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names}
