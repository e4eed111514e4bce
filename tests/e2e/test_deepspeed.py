"""Accelerator deepspeed on two processes: the losses, the results and the resumed run of one
process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from e2e.sharding_setup import (
    CELLS,
    RECIPE,
    check_equal,
    check_near,
    check_refused_alone,
    check_resumed,
    train_all,
)
from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.types import LoadedModel
from tunewright_deepspeed import DeepSpeed
from tunewright_deepspeed.zero import Zero


@pytest.fixture(scope="module", params=[2, 3])
def two_processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"zero{request.param}")
    train_all(folder, 2, list(CELLS), f"accelerators=[{{name: deepspeed, stage: {request.param}}}]")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("full", "stage: 2, offload: optimizer"),
        ("lora", "stage: 3, offload: optimizer"),
        ("full", "stage: 3, offload: all"),
    ],
)
def test_what_is_in_cpu_memory_is_trained_as_on_one_process(
    one_process: Path, tmp_path: Path, cell: str, options: str
) -> None:
    """Without GPUs it is there anyway, and goes through the same code."""
    train_all(tmp_path, 2, [cell], f"accelerators=[{{name: deepspeed, {options}}}]")
    check_equal(one_process / cell, tmp_path / f"{cell}-whole")
    check_resumed(tmp_path / cell)


def test_stage_2_keeps_parameters_where_they_are(tmp_path: Path) -> None:
    more = ["launch.processes=2", "accelerators=[{name: deepspeed, offload: all}]"]
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match="offload: is all, and stage 2 keeps parameters"):
        resolve(tmp_path / "recipe.yaml", more)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["full", "lora"])
def test_two_processes_are_one(one_process: Path, two_processes: Path, cell: str) -> None:
    check_equal(one_process / cell, two_processes / f"{cell}-whole")


@pytest.mark.slow
def test_bf16_is_near_to_autocast_on_one_process(one_process: Path, two_processes: Path) -> None:
    """DeepSpeed keeps weights in bf16 and copies of them in fp32; one process casts them when it
    multiplies."""
    check_near(one_process / "bf16", two_processes / "bf16-whole", "loss", rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(CELLS))
def test_resumed_is_uninterrupted(two_processes: Path, cell: str) -> None:
    check_resumed(two_processes / cell)


def test_one_process_is_refused(tmp_path: Path) -> None:
    check_refused_alone(tmp_path, "deepspeed")


# ---- what is refused, and what is not taken on trust ---------------------------------------------


def zero(stage: int) -> Zero:
    return Zero(DeepSpeed.Options(stage=stage))


def test_quantized_weights_are_refused() -> None:
    model = torch.nn.ModuleDict({"up_proj": torch.nn.Linear(2, 2)})
    weight = torch.zeros(2, 2, dtype=torch.float8_e4m3fn)
    model["up_proj"].weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(RecipeError, match="up_proj is quantized"):
        zero(3).begin(LoadedModel(model, None), "fp32", lambda _: None)


def test_fp16_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(RecipeError, match="trains in bf16 or fp32"):
        zero(2).begin(LoadedModel(model, None), "fp16", lambda _: None)


def test_an_optimizer_that_needs_whole_parameters_is_refused() -> None:
    with pytest.raises(RecipeError, match="Adafactor needs them whole"):
        zero(2).optimizer_made(torch.optim.Adafactor(torch.nn.Linear(2, 2).parameters()))


def test_an_optimizer_that_switches_parameters_is_refused() -> None:
    sharding, model = zero(2), torch.nn.Linear(2, 2)
    sharding.model, sharding.active = model, frozenset({"weight", "bias"})
    sharding.step_begins()
    model.bias.requires_grad_(False)
    with pytest.raises(RunError, match="cannot train other parameters than it began with"):
        sharding.step_begins()


def test_a_second_accelerator_that_spreads_is_refused() -> None:
    from tunewright_hf.distributed.sharding import NoSharding, check_may_shard

    with pytest.raises(RecipeError, match="deepspeed and another accelerator"):
        check_may_shard(
            SimpleNamespace(world_size=2), SimpleNamespace(sharding=NoSharding()), "deepspeed"
        )


@pytest.mark.parametrize(
    ("asked", "got", "problem"),
    [
        (2, {"stage": 1}, "runs ZeRO-1, not ZeRO-2"),
        (2, {"own": 600}, "the optimizer holds 600 of 600 numbers"),
        (3, {"parts": False}, "weight and 0 more are not sharded"),
        (2, {"engine": False}, "Linear wraps the model, not DeepSpeed"),
        (2, {"options": {"offload": "optimizer"}}, "does not offload the optimizer"),
        (3, {"options": {"offload": "all"}}, "does not offload the param"),
    ],
)
def test_what_was_not_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, asked: int, got: dict[str, Any], problem: str
) -> None:
    """An engine of a DeepSpeed that does something else."""
    import deepspeed

    got = {"stage": asked, "own": 300, "parts": True, "engine": True} | got
    parameter = torch.nn.Parameter(torch.zeros(20, 30))
    parameter.ds_shape = parameter.shape
    if got["parts"]:
        parameter.ds_tensor = parameter[:10]
    flats = [torch.zeros(got["own"])]
    optimizer = SimpleNamespace(
        single_partition_of_fp32_groups=flats,
        fp32_partitioned_groups_flat=flats,
        sub_group_to_group_id={0: 0},
        cpu_offload=False,
        offload_optimizer=True,
        offload_param=False,
    )
    engine = SimpleNamespace(optimizer=optimizer, zero_optimization_stage=lambda: got["stage"])
    model = SimpleNamespace(
        named_parameters=lambda: [("weight", parameter)], get_output_embeddings=lambda: None
    )
    monkeypatch.setattr(deepspeed, "DeepSpeedEngine", SimpleNamespace)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    sharding = Zero(DeepSpeed.Options(stage=asked, **got.get("options", {})))
    sharding.groups = [[parameter]]
    with pytest.raises(RunError, match=problem):
        sharding.check_engine(engine if got["engine"] else torch.nn.Linear(1, 1), model)
