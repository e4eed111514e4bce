"""Training as a whole: it learns, and equal settings give equal results."""

from pathlib import Path

import pytest
import torch
from small_setup import small
from training_setup import SIZE, a_run, loaded, logs_of, lora, model, qwen, rows
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright import RecipeError, RunError, events
from tunewright.check import resolve
from tunewright.recipe import Training
from tunewright.run import Run
from tunewright_hf.batching.batch_sampler import Batches, row_lengths
from tunewright_hf.batching.collators import Padded
from tunewright_hf.losses.causal_lm import CausalLoss, shift

__all__ = ["small"]


def of_kind(run, kind):
    return [event for event in run.events if type(event) is kind]


@pytest.mark.parametrize("config", [None, qwen], ids=["llama", "qwen3"])
def test_the_loss_falls(small, config):
    run, result, _ = small(loaded(model(config and config())), max_steps=40, logging_steps=20)
    first, *_, last = logs_of(run)
    assert last["loss"] < 0.7 * first["loss"]
    assert result.metrics["loss"] == last["loss"]
    assert (result.steps, result.tokens) == (40, last["tokens"])


def test_lora_learns_and_only_its_own_weights(small):
    made = lora(model())
    before = {
        name: each.clone() for name, each in made.model.named_parameters() if not each.requires_grad
    }
    run, result, _ = small(made, max_steps=30, learning_rate=5e-2)
    assert logs_of(run)[-1]["loss"] < logs_of(run)[0]["loss"]
    after = dict(made.model.named_parameters())
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    assert (result.path / "adapter_model.safetensors").exists()
    files = {path.name for path in result.path.iterdir()}
    assert not files & {"model.safetensors", "README.md"}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("packing", [False, True])
def test_four_times_one_is_one_times_four(small, packing, weighted):
    data = rows(21, weighted=weighted)
    same = {"packing": packing, "max_length": 24, "max_steps": 8, "batching": "random"}
    run, _, one = small(data=data, per_device_train_batch_size=4, **same)
    how = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    other, _, four = small(data=data, name="other", **how, **same)
    torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-5)
    for left, right in zip(logs_of(run), logs_of(other), strict=True):
        assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_of_several_sizes_are_one_mean_over_the_tokens_of_their_step(small, weighted):
    data = rows(21, weighted=weighted)
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "max_steps": 1}
    made = loaded(model())
    passes = list(Batches(row_lengths(data), Training(**settings)))
    assert len({len(each) for each in passes}) > 1
    batch = Padded(0)(list(data.select([row for each in passes for row in each])))
    labels, given = batch.pop("labels"), batch.pop("loss_weights", None)
    loss = CausalLoss(made.model)(
        made.model, batch["inputs"], labels, given, 1 / float(shift(labels, given)[1].sum())
    )[0]
    loss.backward()
    norm = torch.cat([each.grad.flatten() for each in made.model.parameters()]).norm()
    made.model.zero_grad()
    run, *_ = small(made, data, **settings)
    (first,) = logs_of(run)
    assert first["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_packed_training_equals_unpacked(small):
    """All rows in one batch, so that both see the same rows at each step."""
    data = rows(8)
    run, _, padded = small(data=data, per_device_train_batch_size=8, batching="random")
    other, _, packed = small(data=data, name="other", packing=True, max_length=500)
    torch.testing.assert_close(padded, packed, rtol=1e-4, atol=1e-5)
    assert [log["loss"] for log in logs_of(run)] == pytest.approx(
        [log["loss"] for log in logs_of(other)]
    )


def test_packing_is_refused_where_rows_would_see_each_other(small):
    config = AutoConfig.for_model(
        "bloom", vocab_size=SIZE["vocab_size"], hidden_size=32, n_layer=1, n_head=4
    )
    with pytest.raises(
        RecipeError, match=r"bloom in transformers .* lets packed rows see each other"
    ):
        small(loaded(model(config)), packing=True)


def test_recomputed_activations_change_nothing(small):
    _, _, plain = small()
    _, _, recomputed = small(name="other", activation_checkpointing=True)
    torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-6)


def test_lora_with_recomputed_activations(small):
    run, *_ = small(lora(model()), activation_checkpointing=True)
    assert logs_of(run)[-1]["grad_norm"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_in_half_precision_is_trained_in_full_and_saved_as_it_was(small, precision):
    made = loaded(model().bfloat16())
    run, result, _ = small(made, precision=precision, max_steps=30)
    assert logs_of(run)[-1]["loss"] < logs_of(run)[0]["loss"]
    assert {each.dtype for each in made.model.parameters()} == {torch.bfloat16}
    saved = AutoModelForCausalLM.from_pretrained(result.path)
    assert saved.dtype == torch.bfloat16


def test_the_weights_of_a_quantized_model_are_counted_one_by_one(small):
    """Two weights of 4 bits stand in a byte."""
    recipe: dict = {
        "model": "tiny",
        "family": {"name": "llama", "device": "cpu", "tiny_hidden_size": 16, "tiny_layers": 1},
        "adapter": {"name": "lora", "rank": 2},
        "stage": "sft",
        "data": [{"path": "none"}],
        "output": "none",
    }
    found = []
    for quantizer in (
        None,
        {"name": "bitsandbytes", "bits": 4},
        {"name": "bitsandbytes", "bits": 8},
    ):
        made = Run(resolve(recipe | {"quantizer": quantizer})).load()
        started = small(made, max_steps=1, name=str(len(found)))[0].events[0]
        found.append((started.parameters, started.trainable_parameters))
    adapters = 2 * (
        2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 32)
    )  # of q and o, k and v, and the MLP
    assert found == [(sum(p.numel() for p in made.model.parameters()), adapters)] * 3


def test_events(small):
    evals = {"held out": rows(5, seed=9), "seen": rows(8)}
    run, result, _ = small(evals=evals, max_steps=13, save_steps=5, logging_steps=4)
    started, *_ = run.events
    assert isinstance(started, events.StageStarted)
    assert (started.total_steps, started.first_step, started.rows, started.of) == (13, 0, 24, 1)
    assert (
        started.parameters
        == started.trainable_parameters
        == sum(p.numel() for p in model().parameters())
    )
    assert [log.step for log in of_kind(run, events.Logged)] == [1, 4, 8, 12, 13]
    assert all(
        log.metrics.keys() >= {"tokens_per_second", "memory"} for log in of_kind(run, events.Logged)
    )
    assert [(each.step, each.dataset) for each in of_kind(run, events.Evaluated)] == [
        (6, "held out"),
        (6, "seen"),
        (12, "held out"),
        (12, "seen"),
        (13, "held out"),
        (13, "seen"),
    ]
    assert [each.path for each in of_kind(run, events.Saved)] == [
        f"checkpoints/step-{n}" for n in (5, 10, 13)
    ]
    assert set(result.metrics) == {"loss", "held out_loss", "seen_loss"}


def test_evaluation_is_the_mean_over_tokens_and_leaves_training_alone(small):
    data = rows(7, seed=5, weighted=True)
    run, result, trained = small(evals={"it": data}, eval_steps=2, per_device_eval_batch_size=2)
    other, _, alone = small(name="other")
    assert logs_of(run) == logs_of(other)
    assert all(torch.equal(trained[name], alone[name]) for name in trained)
    made = AutoModelForCausalLM.from_pretrained(result.path)
    batch = Padded(0)(list(data))
    labels, given = batch.pop("labels"), batch.pop("loss_weights")
    expected = (
        CausalLoss(made)(made, batch["inputs"], labels, given)[1] / shift(labels, given)[1].sum()
    )
    assert result.metrics["it_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("kind", ["sft", "pretrain"])
def test_packed_evaluation_equals_unpacked(small, kind, size):
    data = rows(11, seed=5, weighted=kind == "sft")
    if kind == "pretrain":
        data = data.map(lambda row: {"labels": row["input_ids"]})
    how = {
        "evals": {"it": data},
        "max_length": 24,
        "per_device_eval_batch_size": size,
        "learning_rate": 1e-12,
    }
    _, padded, _ = small(**how)
    _, packed, _ = small(name="packed", packing=True, **how)
    assert packed.metrics["it_loss"] == pytest.approx(padded.metrics["it_loss"], rel=1e-6)


def test_nothing_is_printed(small, capfd):
    small(evals={"it": rows(3)}, save_steps=2)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_the_model_keeps_its_own_forward(small):
    made = loaded(model())
    small(made)
    assert "forward" not in made.model.__dict__
    assert made.model.config.use_cache


def test_two_trainings_in_one_process_may_differ_in_precision(small):
    small(precision="bf16")
    small(name="other", precision="fp32")


def test_fp16_needs_a_gpu(small):
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        small(precision="fp16")


def test_nothing_to_train(small):
    made = loaded(model())
    made.model.requires_grad_(False)
    with pytest.raises(RunError, match="no parameter is trainable"):
        small(made)


def test_only_rank_0_reports(tmp_path):
    from tunewright_hf.training.reporting import Reporter

    for rank, expected in ((0, 1), (1, 0)):
        run = a_run(Path(tmp_path), rank=rank)
        Reporter(run, "sft").emit(events.Saved, step=1, path="it")
        assert len(run.events) == expected
