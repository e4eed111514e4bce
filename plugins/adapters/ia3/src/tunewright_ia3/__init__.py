"""IA3: vectors that scale keys, values and the inner activations of MLPs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunewright.types import AdapterRequest
from tunewright_hf.models.peft import PeftAdapter, PeftOptions
from tunewright_hf.models.peft_fields import NAMES, Check


class Ia3(PeftAdapter):
    """Scales the outputs of layers, and the inputs of those in `feedforward`, by one trained vector
    each (Liu et al. 2022, arXiv:2205.05638), through PEFT. The fewest parameters of all; take a
    learning rate of about 3e-3.
    """

    peft_type = "IA3"
    quantizers = frozenset({"bitsandbytes", "quanto", "torchao"})
    config_fields: ClassVar[Mapping[str, Check]] = {"feedforward_modules": NAMES}

    class Options(PeftOptions):
        feedforward: list[str] = Field(
            default_factory=lambda: ["down_proj"],
            description="Names of targeted layers whose inputs are scaled, in place of their "
            "outputs: the second layer of MLPs.",
        )

    def peft_config(self, request: AdapterRequest) -> Any:
        import peft

        targets = self.targets(request.loaded)
        inner = [name for name in targets if name.rpartition(".")[2] in self.options.feedforward]
        return peft.IA3Config(
            target_modules=targets, feedforward_modules=inner, **self.common(request)
        )

    def works_on_meta(self) -> bool:
        return True
