"""Which tokens pass, that the others do not count, and that what is saved says the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tunewright_mixture_of_depths import MixtureOfDepths
from tunewright_mixture_of_depths.routing import RoutedLayer

from tunewright import RecipeError, RunError, registry
from tunewright.types import AdapterRequest, LoadedModel, LoadRequest
from tunewright_conformance.doubles import FakeRun

IDS = torch.randint(3, 200, (2, 16), generator=torch.Generator().manual_seed(0))


def load() -> LoadedModel:
    family = registry.load(registry.find("family", "llama"))
    options = family.Options(device="cpu", tiny_layers=4, tiny_variant="llama3")
    loaded: LoadedModel = family(options).load_model(FakeRun(), LoadRequest("tiny"))
    return loaded


def plugin(**options: Any) -> MixtureOfDepths:
    return MixtureOfDepths(MixtureOfDepths.Options(**options), "mixture_of_depths")


def apply(loaded: LoadedModel | None = None, request: Any = None, **options: Any) -> LoadedModel:
    asked = AdapterRequest(loaded or load(), **(request or {}))
    return plugin(**options).apply_adapter(FakeRun(), asked)


def routed(loaded: LoadedModel) -> list[RoutedLayer]:
    return [each for each in loaded.model.modules() if isinstance(each, RoutedLayer)]


def logits(loaded: LoadedModel, ids: torch.Tensor = IDS, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded.model(input_ids=ids, use_cache=False, **more).logits
    return found


def test_the_best_of_a_row_pass_in_training() -> None:
    loaded = apply(capacity=0.25)
    assert [each.layer_number for each in routed(loaded)] == [1, 3]
    loaded.model.train()
    logits(loaded)
    for layer in routed(loaded):
        states, passed = layer.last
        scores = layer.router(states.float()).squeeze(-1)
        best = scores.topk(4, dim=1).indices
        assert passed.sum(dim=1).tolist() == [4, 4]
        assert (passed.gather(1, best) == 1).all()


def test_with_all_tokens_and_even_gates_it_is_the_model() -> None:
    expected = logits(load())
    loaded = apply(capacity=1.0)
    for layer in routed(loaded):
        torch.nn.init.zeros_(layer.router.weight)
    loaded.model.train()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)


def test_with_no_token_layers_are_left_out() -> None:
    loaded, shorter = apply(), load()
    for layer in routed(loaded):
        torch.nn.init.zeros_(layer.router.weight)  # no score is above 0
    stack = shorter.model.model.layers
    shorter.model.model.layers = torch.nn.ModuleList([stack[0], stack[2]])
    torch.testing.assert_close(logits(loaded), logits(shorter))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_outside_of_training_no_token_depends_on_others_after_it(attention: str) -> None:
    """Nor on what fills up the batch, nor on padding."""
    loaded = apply()
    loaded.model.set_attn_implementation(attention)
    whole = logits(loaded)
    torch.testing.assert_close(logits(loaded, IDS[:, :9]), whole[:, :9], atol=1e-5, rtol=1e-5)
    for row in (0, 1):
        alone = logits(loaded, IDS[row : row + 1])
        torch.testing.assert_close(alone, whole[row : row + 1], atol=1e-5, rtol=1e-5)
    mask = torch.ones_like(IDS)
    mask[1, 9:] = 0
    padded = logits(loaded, attention_mask=mask)
    torch.testing.assert_close(padded[1, :9], whole[1, :9], atol=1e-5, rtol=1e-5)
    left = logits(loaded, attention_mask=mask.flip(1), position_ids=torch.arange(16).expand(2, -1))
    assert not torch.allclose(left[1, 7:], whole[1, 7:])  # other tokens, which it sees no more


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_cache_changes_nothing(attention: str) -> None:
    loaded = apply()
    loaded.model.set_attn_implementation(attention)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    row = IDS[:1]
    cached = loaded.model.generate(row, use_cache=True, **settings)
    assert torch.equal(cached, loaded.model.generate(row, use_cache=False, **settings))
    with pytest.raises(RunError, match="has a key-value cache for one row at a time only"):
        loaded.model.generate(IDS, use_cache=True, **settings)


def test_trained_saved_and_reloaded(tmp_path: Path) -> None:
    from tunewright_hf.models.export import save_result

    loaded = apply()
    optimizer = torch.optim.SGD(loaded.model.parameters(), lr=0.5)
    loaded.model.train()
    for _ in range(3):
        loaded.model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    loaded.model.eval()
    save_result(loaded, tmp_path / "it")
    again = apply(request={"adapter_path": tmp_path / "it", "trainable": False})
    assert torch.equal(logits(again), logits(loaded))
    assert not torch.equal(logits(again), logits(apply()))
    assert not [each for each in again.model.parameters() if each.requires_grad]
    with pytest.raises(RunError, match="does not fit the model"):
        apply(request={"adapter_path": tmp_path / "it"}, every=1)
    with pytest.raises(RunError, match="holds no mixture of depths"):
        apply(request={"adapter_path": tmp_path})
    with pytest.raises(RunError, match="cannot be merged"):
        plugin().merge(loaded)


def test_mistakes() -> None:
    with pytest.raises(RecipeError, match="the model has 4 layers, fewer than 5"):
        apply(every=5)
