"""Initial LoRA matrices from data or from quantization errors: EVA, CorDA, LoRA-GA, LoftQ.

apply_adapter has injected a plain LoRA without effect. EVA and LoftQ write new matrices into it.
CorDA and LoRA-GA, which PEFT initialises while it injects, take it out, prepare the base model, and
inject anew.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunewright import RecipeError
from tunewright.types import Data, LoadedModel, LoadRequest, RunContext
from tunewright_hf.batching.calibration import sequences
from tunewright_hf.losses.chunked_cross_entropy import IGNORED
from tunewright_hf.models.dequantized import plain_weight
from tunewright_hf.models.devices import seeded
from tunewright_hf.models.modules import base_model
from tunewright_hf.models.peft_import import without_bitsandbytes
from tunewright_hf.models.peft_plain import save_as_plain

with without_bitsandbytes():
    import peft
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda
    from peft.tuners.lora.eva import initialize_lora_eva_weights
    from peft.tuners.lora.loraga import preprocess_loraga

if TYPE_CHECKING:
    from tunewright_lora import Lora

__all__ = ["initialize"]

Sequences = Sequence[tuple[list[int], list[int]]]
_EVA_BATCHES = 2000  # that the singular vectors have to converge in


@without_bitsandbytes()
def initialize(adapter: "Lora", run: RunContext, loaded: LoadedModel, data: Data) -> LoadedModel:
    """Initialise a new adapter as `init` says. Raises RecipeError where the data is too small, or
    the model has layers that the method cannot take.

    The config of EVA and LoftQ is a plain one afterwards: what loads the adapter initialises
    nothing.
    """
    options, model = adapter.options, loaded.model
    seed = run.recipe.training.seed
    config, training = model.peft_config["default"], model.training
    with seeded(seed, model.device):
        try:
            if options.init == "loftq":
                _loftq(run, loaded)
                config.init_lora_weights = True
            else:
                found = sequences(data, options.init_examples, seed)
                if options.init == "eva":
                    _eva(model, config, found, options.eva_rho)
                else:
                    loaded.model = _of_prepared_base(loaded, config, options.init, found)
        except (TypeError, ValueError) as error:
            problem = f"{options.init} failed: {' '.join(str(error).split())[:200]}"
            raise RecipeError(problem, place="adapter.init") from error
    loaded.model.train(training)
    loaded.trained = frozenset(
        name for name, each in loaded.model.named_parameters() if each.requires_grad
    )
    return loaded


def _of_prepared_base(loaded: LoadedModel, config: Any, init: str, found: Sequences) -> Any:
    """A new PEFT model whose base has lost what its adapter begins with."""
    model = loaded.model.unload()
    config = copy.deepcopy(config)
    if init == "lora_ga":
        config.init_lora_weights, config.lora_ga_config = "lora_ga", peft.LoraGAConfig()

        def gradients() -> None:
            for ids, labels in found:
                loss = model(input_ids=_row(ids, model), labels=_row(labels, model)).loss
                loss.backward()

        model.requires_grad_(False)
        model.enable_input_require_grads()  # PEFT counts by hooks that need inputs with gradients
        preprocess_loraga(model, config, gradients)
        model.disable_input_require_grads()
    else:
        method = "kpm" if init == "corda_kpm" else "ipm"
        config.init_lora_weights = "corda"
        config.corda_config = CordaConfig(corda_method=method)

        @torch.no_grad()
        def activations() -> None:
            for ids, _ in found:  # PEFT takes sequences one by one
                _backbone(model)(input_ids=_row(ids, model))

        preprocess_corda(model, config, activations)
    model = peft.get_peft_model(model, config)
    save_as_plain(model)
    return model


def _eva(model: Any, config: Any, found: Sequences, rho: float) -> None:
    """Matrices A of singular vectors of the layers' inputs, and ranks by the variance they
    explain."""
    config.init_lora_weights, config.eva_config = "eva", peft.EvaConfig(rho=rho)
    largest = round(config.r * rho)
    batches = list(_batches(found, largest, model))
    if not batches:
        raise RecipeError(
            f"the data is too small for eva: a batch needs {largest} trained tokens",
            place="adapter.init",
            hint="set a smaller rank or eva_rho, or init: default",
        )
    left = _EVA_BATCHES

    def forward(model: Any, inputs: dict[str, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RecipeError(
                f"eva has not converged in {_EVA_BATCHES} batches",
                place="adapter.init",
                hint="set a smaller rank or eva_rho, or init: default",
            )
        _backbone(model)(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])

    initialize_lora_eva_weights(
        model, batches, forward_fn=forward, gather_distributed_inputs=False, show_progress_bar=False
    )
    for name, each in model.named_parameters():  # PEFT makes layers of another rank anew
        if "lora_" in name:
            each.data = each.data.float()
    config.init_lora_weights, config.eva_config = True, None


def _batches(found: Sequences, tokens: int, model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Batches (B, T), padded on the right, with at least `tokens` trained tokens each."""
    rows: list[tuple[list[int], list[int]]] = []
    for row in found:
        rows.append(row)
        if sum(label != IGNORED for _, labels in rows for label in labels) >= tokens:
            length = max(len(ids) for ids, _ in rows)
            padded = {
                "input_ids": [ids + [0] * (length - len(ids)) for ids, _ in rows],
                "attention_mask": [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows],
                "labels": [labels + [IGNORED] * (length - len(labels)) for _, labels in rows],
            }
            yield {name: torch.tensor(each, device=model.device) for name, each in padded.items()}
            rows = []


@torch.no_grad()
def _loftq(run: RunContext, loaded: LoadedModel) -> None:
    """Matrices that make up for the rounding: B A of the weights less the quantized weights, with
    the quantized weights left as they are (LoftQ with one step)."""
    request = LoadRequest(
        run.recipe.model,
        dtype="float32",
        trust_remote_code=run.trust_remote_code,
        seed=run.recipe.training.seed,
        trainable=False,
        device="cpu",
    )
    plain = run.call("family", "load_model", request).model
    for name, layer in base_model(loaded.model).named_modules():
        if not hasattr(layer, "lora_A") or name not in loaded.quantized:
            continue
        quantized = plain_weight(layer.get_base_layer(), torch.float32)
        weight = plain.get_submodule(name).weight.to(quantized.device)
        left, values, right = torch.linalg.svd(weight - quantized, full_matrices=False)
        rank = layer.r["default"]
        root = (values[:rank] / layer.scaling["default"]).sqrt()
        layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
        layer.lora_B["default"].weight.copy_(left[:, :rank] * root)


def _row(tokens: list[int], model: Any) -> torch.Tensor:
    """(1, T)"""
    return torch.tensor([tokens], device=model.device)


def _backbone(model: Any) -> Any:
    """The model without a head that needs more than tokens."""
    model = base_model(model)
    return model if model.can_generate() else model.base_model
