"""Layers split over two ranks: the training of one process."""

import json
from pathlib import Path

import pytest
import torch
from accelerators_setup import asked, go, on_two_processes
from test_expert_parallel import weights
from transformers import BertConfig, LlamaConfig, Qwen3Config

import forked
from tunewright import RecipeError, check
from tunewright.run import Run
from tunewright.source import RecipeProblems
from tunewright_tensor_parallel.limits import check_accumulation, check_config

GROUPS = {"name": "tensor_parallel", "size": 2}
FAMILIES = {
    "llama": {"name": "llama"},
    "qwen": {"name": "qwen", "tiny_variant": "qwen3"},  # its norms of heads are summed
}
LORA = {"name": "lora", "rank": 4, "targets": "all-linear", "loraplus_ratio": 4}


def sections_for(folder, name, passes, adapter="full", tied=False):
    """Sections of a recipe that trains a checkpoint of the family, made here. passes: in a step of
    4 examples. tied: whether embeddings and head are one matrix."""
    family = FAMILIES[name]
    made = asked(folder / "made", family={"device": "cpu", **family})
    loaded = Run(check.resolve(made)).load(trainable=False)
    loaded.model.config.tie_word_embeddings = tied
    head = loaded.model.lm_head
    if tied:
        head.weight = loaded.model.get_input_embeddings().weight
        loaded.model.resize_token_embeddings(pad_to_multiple_of=4)  # four ranks share it
    else:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    loaded.model.save_pretrained(folder / "checkpoint")
    loaded.tokenizer.save_pretrained(folder / "checkpoint")
    return {
        "model": str(folder / "checkpoint"),
        "family": {"name": family["name"], "device": "cpu"},
        "template": "default",
        "adapter": adapter,
        "eval_data": {"held_out": asked(folder / "rows")["data"]},
        "training": {
            "eval_steps": 2,
            "save_steps": 2,
            "gradient_accumulation_steps": passes,
            "per_device_train_batch_size": 4 // passes,
        },
    }


@pytest.mark.long
@pytest.mark.parametrize("tied", [False, True])
def test_two_groups_of_two_ranks_train_as_one(tmp_path, tied):
    """Weights are sharded over groups too."""
    sections = sections_for(tmp_path, "llama", 1, tied=tied)
    one = go(tmp_path / "one", **sections)
    sections["training"]["per_device_train_batch_size"] = 2
    words = [tmp_path / "four", json.dumps([GROUPS]), json.dumps(sections)]
    worker = Path(__file__).with_name("accelerators_worker.py")
    done = forked.run(worker, *map(str, words), processes=4)
    assert not any(done.codes), done.error[-3000:]
    (line,) = [each for each in done.output.splitlines() if each.startswith("RESULT ")]
    for mine, right in zip(json.loads(line[len("RESULT ") :]), one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-5)
    whole, found = (weights(tmp_path / each) for each in ("one", "four"))
    assert whole.keys() == found.keys()
    for each, tensor in whole.items():  # Adam enlarges what rounding leaves
        assert torch.allclose(found[each], tensor, atol=2e-5), each


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes", "adapter", "tied"),
    [
        ("llama", 2, "full", True),
        ("qwen", 1, "full", False),
        ("qwen", 2, LORA, True),
        pytest.param("llama", 2, "full", False, marks=pytest.mark.long),
        pytest.param("llama", 2, LORA, False, marks=pytest.mark.long),
    ],
)
def test_two_ranks_train_as_one(tmp_path, name, passes, adapter, tied):
    sections = sections_for(tmp_path, name, passes, adapter, tied)
    one = go(tmp_path / "one", **sections)
    words = [tmp_path / "two", json.dumps(["tensor_parallel"]), json.dumps(sections)]
    two = on_two_processes("accelerators_worker.py", *words)
    assert len(two) == len(one.metrics) > 4
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-5)
    whole, found = (weights(tmp_path / each) for each in ("one", "two"))
    assert whole.keys() == found.keys()
    for each, tensor in whole.items():  # Adam enlarges what rounding leaves
        assert torch.allclose(found[each], tensor, atol=2e-5), each
    if adapter == "full":
        config = "run/model/config.json"
        assert (tmp_path / "two" / config).read_text() == (tmp_path / "one" / config).read_text()
    interrupt(tmp_path / "two/run")
    again = on_two_processes("accelerators_worker.py", *words, "resume")
    assert again == two[-len(again) :] and len(again) == 3  # steps 3 and 4, and an evaluation
    assert all(found[each].equal(it) for each, it in weights(tmp_path / "two").items())


def interrupt(run):
    """Leave a run as one that was killed after step 2."""
    (run / "checkpoints/step-4/manifest.json").unlink()
    state = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(state | {"status": "interrupted", "stages": []}))


GRPO = {"name": "grpo", "rewards": ["length"]}
TWO = {"launch": {"processes": 2}}
ORG = {"model": "org/model", **TWO}


@pytest.mark.parametrize(
    ("accelerators", "more", "message"),
    [
        ([], {}, "tensor_parallel needs several processes, and there is one"),
        ([], TWO, "model: is tiny, and tensor_parallel shards checkpoints"),
        ([], {"adapter": "ia3", **ORG}, "splits the model's own weights, and adapter ia3 adds"),
        ([], {"adapter": {"name": "lora", "dora": True}, **ORG}, "adapter.dora: does not go toge"),
        ([], {"adapter": {"name": "lora", "init": "olora"}, **ORG}, "adapter.init: does not go"),
        (["fsdp"], ORG, "spreads the work over all ranks, and so does fsdp"),
        (["sequence_parallel"], ORG, "over all ranks, and so does sequence_parallel"),
        ([], {"stage": GRPO, **ORG}, "grpo generates text, which needs the whole model"),
    ],
)
def test_what_cannot_work_is_refused_by_the_check(
    tmp_path, monkeypatch, accelerators, more, message
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RecipeProblems, match=message):
        check.resolve(asked(tmp_path, "tensor_parallel", *accelerators, **more))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(), "transformers has no plan of tensor parallelism for bert"),
        (LlamaConfig(num_key_value_heads=3), "2 ranks cannot share 32 query heads and 3 key heads"),
    ],
)
def test_models_that_cannot_be_split_are_refused(config, message):
    with pytest.raises(RecipeError, match=message):
        check_config(config, 2)


def test_gradients_that_are_summed_after_each_pass():
    check_accumulation(LlamaConfig(), 2)
    check_accumulation(Qwen3Config(), 1)
    with pytest.raises(RecipeError, match="sums some gradients of qwen3 after each forward pass"):
        check_accumulation(Qwen3Config(), 2)
