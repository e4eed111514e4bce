"""BAdam and LISA: what is trained when, and what is then in memory."""

import pytest
import torch
from optimizers_setup import RECIPE, both, build, go, plain, plugin, request, step, toy
from test_resume import assert_same_state
from training_setup import SIZE, a_run, loaded, model, rows, run_training, stop_after
from transformers import LlamaConfig

from tunewright import RecipeError, check
from tunewright.errors import Stopped
from tunewright.types import AdapterRequest
from tunewright_badam.ratio import scatter
from tunewright_hf.checkpoints.folder import latest_checkpoint
from tunewright_hf.training.block_switching import layer_blocks, shuffled
from tunewright_hf.training.callbacks import TrainingCallback
from tunewright_lisa import Lisa


class Watching(TrainingCallback):
    """Collects, step by step, which parameters were updated, and how many gradients and states
    there are at the end of it, in values."""

    def __init__(self):
        self.moved, self.gradients, self.states = [], [], []

    def on_step_begin(self, loop):
        self.before = {name: each.detach().clone() for name, each in loop.trained()}

    def on_step_end(self, loop):
        parameters = loop.trained()
        self.moved.append({n for n, each in parameters if not torch.equal(each, self.before[n])})
        self.gradients.append(sum(each.numel() for _, each in parameters if each.grad is not None))
        state = loop.optimizer.state
        self.states.append(
            sum(v.numel() for each in state.values() for v in each.values() if v.ndim)
        )


def deep():
    """A model of four layers."""
    return model(LlamaConfig(**{**SIZE, "num_hidden_layers": 4}))


def watched(folder, options, made, **more):
    watching = Watching()
    made.model.training_callbacks = [*getattr(made.model, "training_callbacks", ()), watching]
    optimizer = plugin("badam", **options) if options else plugin("adamw")
    run = a_run(folder, plugins={"optimizer": optimizer})
    run_training(folder, made, rows(30), run=run, **more)
    return watching


def layers_of(names):
    return {name.split(".")[2] if ".layers." in name else name for name in names}


@pytest.mark.parametrize(
    ("mode", "expected"), [("ascending", "00112233"), ("descending", "33221100")]
)
def test_badam_trains_one_layer_at_a_time(tmp_path, mode, expected):
    options = {"switch_interval": 2, "switch_mode": mode}
    found = watched(tmp_path, options, loaded(deep()), max_steps=8)
    assert [layers_of(names) for names in found.moved] == [{number} for number in expected]


def test_badam_in_random_order_trains_all_layers_before_one_again(tmp_path):
    found = watched(tmp_path, {"switch_interval": 1}, loaded(deep()), max_steps=8)
    order = ["".join(layers_of(names)) for names in found.moved]
    assert sorted(order[:4]) == sorted(order[4:]) == ["0", "1", "2", "3"]
    assert order[:4] != order[4:]


def test_badam_trains_embeddings_and_head_if_asked(tmp_path):
    options = {"switch_interval": 1, "switch_mode": "ascending", "train_embeddings": True}
    found = watched(tmp_path, options, loaded(model()), max_steps=5)
    assert [layers_of(names) for names in found.moved] == [
        {"0"},
        {"1"},
        {"model.embed_tokens.weight"},
        {"model.norm.weight"},
        {"lm_head.weight"},
    ]


def test_badam_holds_gradients_and_states_of_one_layer(tmp_path):
    made = loaded(deep())
    layer = sum(each.numel() for each in made.model.model.layers[0].parameters())
    assert layer < sum(each.numel() for each in made.model.parameters()) / 4
    found = watched(tmp_path, {"switch_interval": 2}, made, max_steps=9)
    assert set(found.gradients) == {layer}
    assert set(found.states) == {2 * layer}


def lisa(network, **options):
    adapter = Lisa(Lisa.Options(**options), "lisa")
    return adapter.apply_adapter(None, AdapterRequest(loaded(network)))


ALWAYS = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


def test_lisa_trains_embeddings_head_and_some_layers(tmp_path):
    made = lisa(deep(), activated_layers=2, interval_steps=3)
    sizes = {name: each.numel() for name, each in made.model.named_parameters()}
    found = watched(tmp_path, {}, made, max_steps=12)
    drawn = [layers_of(names) for names in found.moved]
    for number, names in enumerate(drawn):
        assert names >= ALWAYS and len(names) == 5
        assert names == drawn[number // 3 * 3]
    assert len({frozenset(names) for names in drawn}) > 1
    held = sum(n for name, n in sizes.items() if name in ALWAYS or ".layers.0." in name)
    held += sum(n for name, n in sizes.items() if ".layers.0." in name)
    assert set(found.gradients) == {held}
    assert set(found.states) == {2 * held}


@pytest.mark.parametrize("at", [4, 6])  # within a period, and at the end of one
@pytest.mark.parametrize("way", ["lisa", "layer", "ratio"])
def test_resumes_bit_for_bit(tmp_path, way, at):
    def start(folder, **more):
        made = lisa(deep(), interval_steps=3) if way == "lisa" else loaded(deep())
        options = {"switch_interval": 3, "mode": way}
        optimizer = plugin("adamw") if way == "lisa" else plugin("badam", **options)
        run = a_run(folder, plugins={"optimizer": optimizer})
        run_training(folder, made, rows(30), run=run, max_steps=8, **more)
        return made.model

    whole = start(tmp_path / "whole", save_steps=8)
    with pytest.raises(Stopped):
        start(tmp_path / "parts", stop=stop_after(at))
    found = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    parts = start(tmp_path / "parts", checkpoint=found, save_steps=8)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_same_state(*(tmp_path / name / "checkpoints/step-8" for name in ("whole", "parts")))


def test_lisa_of_more_layers_than_there_are():
    with pytest.raises(RecipeError, match="activated_layers: the model has 4 layers, not 5"):
        lisa(deep(), activated_layers=5)


# ---- mode ratio ----------------------------------------------------------------------------------


def test_a_ratio_of_1_is_adamw(tmp_path):
    ours = build(tmp_path, "badam", mode="ratio", update_ratio=1.0)
    both(ours, lambda network: torch.optim.AdamW(plain(network)))


@pytest.mark.parametrize("mask_mode", ["adjacent", "scatter"])
def test_ratio_trains_a_share_of_each_weight(tmp_path, mask_mode):
    options = {"mode": "ratio", "update_ratio": 0.1, "mask_mode": mask_mode}
    network = toy()
    optimizer = build(tmp_path, "badam", **options)(network)
    before = [each.detach().clone() for each in network.parameters()]
    found = []
    for period in (0, 0, 1):
        optimizer.switch(period)
        step(network, optimizer)
        now = [each.detach().clone() for each in network.parameters()]
        found.append([(a != b).flatten() for a, b in zip(now, before, strict=True)])
        before = now
    for first, again, other in zip(*found, strict=True):
        assert int(first.sum()) == int(other.sum()) == -(-len(first) // 10)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        places = first.nonzero().flatten()
        assert (int(places[-1] - places[0]) == len(places) - 1) == (mask_mode == "adjacent")


def test_gradients_of_other_entries_do_not_count_in_clipping(tmp_path):
    made, seen = loaded(model()), []

    class Norm(TrainingCallback):
        def on_step_end(self, loop):
            flat = torch.cat([each.grad.flatten() for _, each in loop.trained()])
            seen.append(float((flat != 0).float().mean()))

    made.model.training_callbacks = [Norm()]
    go(tmp_path, "badam ratio", made, max_steps=2)
    assert max(seen) < 0.21


def test_scattered_positions_are_all_over():
    positions = scatter(1000, 50, torch.Generator().manual_seed(0))
    assert len(set(positions.tolist())) == 50
    assert set((positions // 20).tolist()) == set(range(50))
    assert scatter(7, 7, torch.Generator()).tolist() == list(range(7))


# ---- the choice ----------------------------------------------------------------------------------


def test_blocks_are_named_by_layer_and_module():
    names = ["a.embed.weight", "a.h.0.q.weight", "a.h.0.experts.1.w", "a.h.1.q.bias", "head.weight"]
    names.append("head.bias")
    assert layer_blocks(names) == (
        [names[1:3], [names[3]]],
        [[names[0]], ["head.weight", "head.bias"]],
    )


def test_the_choice_depends_on_seed_and_period_alone():
    torch.manual_seed(1)
    first = [shuffled(8, 42, period) for period in range(4)]
    torch.manual_seed(2)
    assert first == [shuffled(8, 42, period) for period in range(4)]
    assert len({tuple(order) for order in first}) == 4
    assert first != [shuffled(8, 43, period) for period in range(4)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "badam", "accelerators": ["deepspeed"]},
            "accelerators.*DeepSpeed cannot train other parameters than it began with, and badam",
        ),
        (
            {"adapter": "lisa", "accelerators": ["deepspeed"]},
            "accelerators.*DeepSpeed cannot train other parameters than it began with, and lisa",
        ),
        ({"adapter": "lisa", "optimizer": "badam"}, "adapter: lisa and badam both switch"),
        (
            {"optimizer": {"name": "badam", "mode": "ratio"}, "accelerators": ["fsdp"]},
            "badam needs whole matrices, and fsdp shards them",
        ),
    ],
)
def test_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        check.resolve({**RECIPE, **changes})


def test_nothing_to_switch(tmp_path):
    network = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2)})
    with pytest.raises(RecipeError, match="badam found no trained layer"):
        plugin("badam").build_optimizer(a_run(tmp_path), request(network))
