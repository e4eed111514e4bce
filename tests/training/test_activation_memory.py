"""Activations that are recomputed or put away: the same training to the bit, with fewer of them in
memory."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from accelerators_setup import asked, assert_same_weights, go
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_setup import lora, model, qwen

from tunewright import RecipeError, RunError, check
from tunewright.source import RecipeProblems
from tunewright_activation_checkpointing.selection import checkpointed, selected
from tunewright_activation_offload.offload import Offload
from tunewright_activation_offload.stores import CpuStore, DiskStore
from tunewright_hf.training.forward_wrapping import wrapped_in_training

DISK = {"name": "activation_offload", "offload_to": "disk"}
SELECTIVE = {"name": "activation_checkpointing", "every_n_layers": 2}
ATTENTION = {**SELECTIVE, "every_n_layers": 1, "operators": ["attention"]}
MLP = {**SELECTIVE, "every_n_layers": 1, "operators": ["mlp"]}
WAYS = {
    "offloaded to disk": [DISK],
    "every second layer": [SELECTIVE],
    "attention": [ATTENTION],
    "mlp": [MLP],
    "both parts": [{**ATTENTION, "operators": ["attention", "mlp"]}],
    "both": [DISK, SELECTIVE],
    "both, turned": [SELECTIVE, DISK],
}
DROPOUT = {"name": "lora", "rank": 4, "dropout": 0.2}


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.sizes, self.bytes = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    self.bytes += storage.nbytes()
                    weakref.finalize(storage, self._gone, key)
        return made

    def _gone(self, key):
        self.bytes -= self.sizes.pop(key)


@pytest.mark.parametrize("adapter", ["full", DROPOUT], ids=["full", "lora"])
@pytest.mark.parametrize("way", WAYS)
def test_a_training_is_the_same_to_the_bit(tmp_path, way, adapter):
    plain = go(tmp_path / "plain", adapter=adapter)
    other = go(tmp_path / "other", *WAYS[way], adapter=adapter)
    assert other.losses == plain.losses
    assert_same_weights(other, plain)
    assert not (tmp_path / "other/run/activations").exists()


def test_offload_works_with_checkpointing_of_all_layers(tmp_path):
    plain = go(tmp_path / "plain")
    other = go(tmp_path / "other", DISK, training={"activation_checkpointing": True})
    assert other.losses == plain.losses
    assert_same_weights(other, plain)


# ---- what stays in memory ------------------------------------------------------------------------


def gradients(network, context):
    """Gradients, and the bytes that a forward pass leaves in memory for the backward pass."""
    network.train()
    ids = torch.arange(3, 123).reshape(2, 60)
    with context:
        with LiveBytes() as live:
            loss = network(input_ids=ids, labels=ids, use_cache=False).loss
            kept = live.bytes
        loss.backward()
    return [each.grad.clone() for each in network.parameters() if each.grad is not None], kept


def offloaded(network, store, least=0):
    return Offload(store, least).active(network)


def recomputed(network, every, operators=()):
    return wrapped_in_training(selected(network, every, operators), checkpointed)


def compared(make, context):
    """Bytes kept without and with it. Gradients are equal to the bit."""
    expected, plain = gradients(make(), nullcontext())
    network = make()
    found, kept = gradients(network, context(network))
    assert len(expected) == len(found) > 0
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    return plain, kept


@pytest.mark.parametrize("make", [model, lambda: model(qwen()), lambda: lora(model(), 0.0).model])
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_activations_leave_memory(tmp_path, place, make):
    store = DiskStore(tmp_path / "a") if place == "disk" else CpuStore(pin=False)
    plain, kept = compared(make, lambda network: offloaded(network, store))
    if place == "disk":  # in CPU memory the copies count
        assert kept < plain / 4
        assert not list((tmp_path / "a").iterdir())  # each was removed with its graph
    store.close()
    assert not (tmp_path / "a").exists()


def test_weights_and_small_tensors_stay(tmp_path):
    store = DiskStore(tmp_path / "a")
    network = model().train()
    weights = {each.data_ptr() for each in network.parameters()}
    put = []
    own = store.put

    def watched(tensor):
        put.append((tensor.data_ptr(), tensor.nbytes))
        return own(tensor)

    store.put = watched
    gradients(network, offloaded(network, store, least=1024))
    assert put
    assert min(size for _, size in put) >= 1024
    assert not weights & {place for place, _ in put}


def test_fewer_layers_keep_activations():
    whole, second = compared(model, lambda network: recomputed(network, 2))
    _, every = compared(model, lambda network: recomputed(network, 1))
    _, attention = compared(model, lambda network: recomputed(network, 1, ["attention"]))
    _, mlp = compared(model, lambda network: recomputed(network, 1, ["mlp"]))
    assert every < second < whole
    assert every < attention < whole
    assert every < mlp < whole


def test_evaluation_is_left_alone(tmp_path):
    store, network = DiskStore(tmp_path / "a"), model().eval()
    store.put = None  # would fail
    ids = torch.arange(3, 33)[None]
    with offloaded(network, store), recomputed(network, 1):
        network(input_ids=ids)
        with torch.no_grad():
            network.train()(input_ids=ids)


def test_nothing_is_left_on_the_model_after_an_error(tmp_path):
    network = model().train()
    with (
        pytest.raises(RuntimeError),
        offloaded(network, DiskStore(tmp_path / "a")),
        recomputed(network, 1),
    ):
        network(input_ids=torch.tensor([[3.5]]))
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
    assert not any("forward" in vars(module) for module in network.modules())
    # nor are the hooks of a forward pass that ended early
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64], ids=str)
def test_files_keep_values_and_strides(tmp_path, dtype):
    store = DiskStore(tmp_path / "a")
    for tensor in (
        torch.randn(3, 4, 5).to(dtype),
        torch.randn(3, 4, 5).to(dtype).transpose(0, 2),
        torch.randn(3, 1).to(dtype).expand(3, 4),
        torch.tensor(1.0).to(dtype),
    ):
        again = store.put(tensor).get()
        assert torch.equal(again, tensor)
        assert again.dtype == dtype
        if 0 not in tensor.stride():
            assert again.stride() == tensor.stride()


def test_a_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("tunewright_activation_offload.stores.save_file", full)
    with pytest.raises(RunError, match=r"cannot be written: OSError: No space left.*make room"):
        DiskStore(tmp_path / "a").put(torch.zeros(3))


# ---- what is refused -----------------------------------------------------------------------------


def test_both_ways_to_recompute_are_refused(tmp_path):
    recipe = asked(tmp_path, SELECTIVE, training={"activation_checkpointing": True})
    with pytest.raises(RecipeProblems, match=r"training\.activation_checkpointing: recomputes all"):
        check.resolve(recipe)


def test_offload_to_the_memory_that_holds_them_is_refused(tmp_path, monkeypatch):
    recipe = asked(tmp_path, "activation_offload", family={"device": "cpu"})
    with pytest.raises(RecipeProblems, match="trains on the CPU, whose memory holds"):
        check.resolve(recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="trains on the CPU, whose memory holds"):
        go(tmp_path, "activation_offload")


def test_parts_that_a_layer_does_not_have_are_refused():
    network = model()
    for layer in network.model.layers:
        layer.mixer = layer.__dict__["_modules"].pop("mlp")
    with pytest.raises(RecipeError, match=r"have no mlp, but self_attn, mixer"):
        selected(network, 1, ["mlp"])


@pytest.mark.gpu
def test_offload_to_cpu_frees_gpu_memory():
    network = model(qwen()).cuda()

    def kept(context):
        ids = torch.arange(3, 123, device="cuda").reshape(2, 60)
        with context:
            before = torch.cuda.memory_allocated()
            loss = network.train()(input_ids=ids, labels=ids, use_cache=False).loss
            held = torch.cuda.memory_allocated() - before
            loss.backward()
        grads = [each.grad.clone() for each in network.parameters()]
        network.zero_grad()
        return held, grads

    kept(nullcontext())  # workspaces of the libraries
    plain, expected = kept(nullcontext())
    less, found = kept(offloaded(network, CpuStore(pin=True)))
    assert less < plain / 2
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
