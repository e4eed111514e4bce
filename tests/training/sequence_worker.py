"""One of several processes: compares a pass over a split sequence with one over the whole, and
prints what was found as JSON.

Arguments: a method, and a folder that nobody reads.
"""

import json
import sys

import torch
from torch.nn import functional as F
from training_setup import SIZE, model, qwen
from transformers import LlamaConfig, MistralConfig

from tunewright_sequence_parallel.sharding import SequenceSharding

CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZE),
    "mistral": lambda: MistralConfig(**SIZE, sliding_window=3),
    "qwen": qwen,
}
#: lengths of the examples in a sequence; fewer tokens than ranks too
LENGTHS = {"even": [8], "odd": [7], "packed": [3, 1, 5, 4], "one": [1], "two of three": [5]}


def gradients(network, batch, average):
    """Loss and gradients of a batch, summed over ranks if asked."""
    network.zero_grad()
    logits = network(**batch["inputs"], use_cache=False).logits
    targets = F.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    loss = F.cross_entropy(logits.transpose(1, 2), targets, reduction="sum")
    loss.backward()
    found = [loss.detach(), *(each.grad for each in network.parameters())]
    if average:
        for each in found:
            torch.distributed.all_reduce(each)
    return found


def compare(family, lengths, method, rank, size):
    """Largest relative difference of loss and gradients, and tokens that layers got."""
    network = model(CONFIGS[family](), attention="sdpa").train()
    places = torch.tensor([[place for length in lengths for place in range(length)]])
    ids = torch.randint(3, 100, places.shape, generator=torch.Generator().manual_seed(0))
    batch = {"inputs": {"input_ids": ids, "position_ids": places}, "labels": ids.clone()}
    expected = [each.clone() for each in gradients(network, batch, False)]
    tokens = []
    sharding = SequenceSharding(method, size, rank)
    with sharding.active(network):
        sharding.begin(torch.distributed.group.WORLD)
        hook = network.model.layers[1].register_forward_pre_hook(
            lambda module, args: tokens.append(args[0].shape[1])
        )
        found = gradients(network, sharding.own_labels(batch), True)
        hook.remove()
    assert network.config._attn_implementation == "sdpa"
    apart = [
        float((one - other).norm() / other.norm().clamp(min=1e-6))
        for one, other in zip(found, expected, strict=True)
    ]
    return [max(apart), tokens[0]]


def main(method):
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.set_num_threads(1)
    found = {
        f"{family}, {name}": compare(family, lengths, method, rank, size)
        for family in CONFIGS
        for name, lengths in LENGTHS.items()
    }
    if rank == 0:
        print("RESULT " + json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
