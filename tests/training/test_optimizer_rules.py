"""Every optimizer by its rule: step by step beside another one, or by hand."""

import pytest
import torch
from optimizers_setup import LOW_RANK, both, build, go, plain, step, toy
from training_setup import lora, model


def test_lomo_is_sgd(tmp_path):
    both(build(tmp_path, "lomo"), lambda network: torch.optim.SGD(plain(network)))


def test_adalomo_is_adafactor_relative_to_the_parameter(tmp_path):
    adafactor = build(tmp_path, "adafactor", scale_parameter=True)
    both(build(tmp_path, "adalomo"), adafactor)


def test_galore_is_that_of_pytorch_optimizer(tmp_path):
    from pytorch_optimizer import GaLore

    def reference(network):
        low = {"rank": 4, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
        # eps: theirs stands beside second moments that are not yet corrected
        return GaLore(plain(network, **low), eps=1e-12)

    ours = build(tmp_path, "galore", rank=4, update_proj_gap=200, eps=1e-12)
    both(ours, reference, tolerance=1e-4)


def test_galore_of_full_rank_is_adamw_in_other_axes(tmp_path):
    """Layerwise and at once are the same."""
    at_once = build(tmp_path, "galore", **LOW_RANK)
    both(build(tmp_path, "galore", **LOW_RANK, layerwise=True), at_once)


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_apollo_by_hand(tmp_path, scale_type):
    """Adam in the subspace gives the size of each channel's update, or of the matrix's."""
    network, steps = toy(), 4
    make = build(tmp_path, "apollo", rank=4, scale_type=scale_type, scale=4.0)
    optimizer, matrix = make(network), network[0].weight
    expected, first, second, before = matrix.detach().clone(), 0.0, 0.0, None
    for number in range(1, steps + 1):
        gradient = 2 * (expected - 1.5)
        step(network, optimizer)
        projected = gradient @ optimizer.bases[matrix].T  # (96, 64) @ (64, 4)
        first = 0.9 * first + 0.1 * projected
        second = 0.999 * second + 0.001 * projected**2
        adapted = first / (second.sqrt() + 1e-12)
        dims = (1,) if scale_type == "channel" else (0, 1)
        update = gradient * adapted.norm(dim=dims, keepdim=True)
        update = update / projected.norm(dim=dims, keepdim=True)
        if before is not None and update.norm() > 1.01 * before:
            update = update * 1.01 * before / update.norm()
        before = update.norm()
        rate = 0.01 * (1 - 0.999**number) ** 0.5 / (1 - 0.9**number)
        expected = expected * (1 - 0.01 * 0.1) - 2 * rate * update  # 2: the root of the scale
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-3, rtol=1e-4)


def test_apollo_projects_alike_on_all_ranks(tmp_path):
    torch.manual_seed(1)
    first = build(tmp_path, "apollo", **LOW_RANK)(network := toy())
    step(network, first)
    torch.manual_seed(2)
    second = build(tmp_path, "apollo", **LOW_RANK)(network := toy())
    step(network, second)
    for one, other in zip(first.bases.values(), second.bases.values(), strict=True):
        assert torch.equal(one, other)


def test_muon_takes_hidden_matrices_and_adamw_the_rest(tmp_path):
    network = model()
    optimizer = build(tmp_path, "muon")(network)
    names = {id(each): name for name, each in network.named_parameters()}
    by_muon = {
        names[id(each)]
        for group in optimizer.parts["muon"].param_groups
        for each in group["params"]
    }
    assert by_muon == {n for n in names.values() if n.endswith("proj.weight")}
    assert set(names.values()) - by_muon == {
        names[id(each)]
        for group in optimizer.parts["adamw"].param_groups
        for each in group["params"]
    }


def test_adam_mini_by_hand(tmp_path):
    """One second moment per row of a matrix, one per vector; AdamW for the rest of it."""
    network = toy()
    before = [each.detach().clone() for each in network.parameters()]
    optimizer = build(tmp_path, "adam_mini")(network)
    step(network, optimizer)
    for each, start in zip(network.parameters(), before, strict=True):
        gradient = 2 * (start - 1.5)
        dims = (1,) if each.ndim == 2 else (0,)
        scale = gradient.square().mean(dim=dims, keepdim=True).sqrt() + 1e-8
        decayed = start * (1 - 0.01 * (0.1 if each.ndim == 2 else 0))
        torch.testing.assert_close(each, decayed - 0.01 * gradient / scale)


def test_adam_mini_has_a_second_moment_per_head(tmp_path):
    network = model()  # 4 heads and 2 of keys, of 8 rows each
    optimizer = build(tmp_path, "adam_mini")(network)
    network(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    optimizer.step()
    sizes = {
        name.split(".")[-2]: len(optimizer.state[each]["exp_avg_sq"])
        for name, each in network.named_parameters()
        if "layers.0" in name
    }
    assert (sizes["q_proj"], sizes["k_proj"], sizes["v_proj"], sizes["o_proj"]) == (4, 2, 16, 32)


def test_lorafa_freezes_a(tmp_path):
    made = lora(model())
    before = {name: each.detach().clone() for name, each in made.model.named_parameters()}
    go(tmp_path, "lorafa", made)
    changed = {
        name for name, each in made.model.named_parameters() if not torch.equal(each, before[name])
    }
    assert changed == {name for name in before if "lora_B" in name}


def test_a_layerwise_optimizer_never_holds_all_gradients(tmp_path):
    network = model()
    optimizer = build(tmp_path, "lomo")(network)
    most = 0

    def look(parameter):
        nonlocal most
        most = max(most, sum(each.grad is not None for each in network.parameters()))

    for each in network.parameters():
        each.register_post_accumulate_grad_hook(look)
    before = network.lm_head.weight.detach().clone()
    network(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert not torch.equal(before, network.lm_head.weight)
    assert most <= 1
    assert optimizer.state_dict()["each"]
