"""Adapters of PEFT with FSDP on two processes: applied without weights, sharded, and then given
those of rank 0, they train, save and resume as on one process."""

from pathlib import Path

import pytest

from e2e.sharding_setup import CELLS, RECIPE, check_equal, check_resumed, train_all
from tunewright import RecipeError
from tunewright.check import resolve

ADAPTERS = {
    "boft": "{name: boft}",
    "fourierft": "{name: fourierft, frequencies: 20}",
    "hra": "{name: hra, rank: 4}",
    "ia3": "{name: ia3}",
    "miss": "{name: miss, rank: 8}",
    "oft": "{name: oft, block_size: 8}",
    "vera": "{name: vera, rank: 16}",
}
IN_CI = ("vera",)  # with buffers that all layers share
adapters = pytest.mark.parametrize(
    "trained",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.long) for name in ADAPTERS],
    indirect=True,
)


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The folders of a run on one process, and on two with FSDP."""
    name = request.param
    one, two = (tmp_path_factory.mktemp(f"{name}-{count}") for count in ("one", "two"))
    cell = [f"adapter={ADAPTERS[name]}", "training.precision=fp32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CELLS, name, cell)
        train_all(one, 1, [name])
        train_all(two, 2, [name], "accelerators=[fsdp]")
    return one / name, two / name


@pytest.mark.slow
@adapters
def test_two_processes_are_one(trained: tuple[Path, Path]) -> None:
    one, two = trained
    check_equal(one, two.with_name(f"{two.name}-whole"))


@pytest.mark.slow
@adapters
def test_resumed_is_uninterrupted(trained: tuple[Path, Path]) -> None:
    check_resumed(trained[1])


@pytest.mark.parametrize("name", ["adalora", "prefix_tuning", "prompt_tuning", "trainable_tokens"])
def test_what_cannot_be_sharded_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=f"PEFT's {name} does not work on parameters that fsdp"):
        resolve(tmp_path / "recipe.yaml", [f"adapter={name}", "accelerators=[fsdp]"])
