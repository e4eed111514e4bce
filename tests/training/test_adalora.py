"""AdaLoRA in a training: ranks fall to their target, and what is saved and resumed is the same."""

import pytest
import torch
from test_resume import assert_same_state
from training_setup import loaded, model, rows, run_training

from tunewright import RecipeError
from tunewright.errors import Stopped
from tunewright.types import AdapterRequest
from tunewright_adalora import AdaLora
from tunewright_hf.checkpoints.folder import latest_checkpoint

OPTIONS = {"init_rank": 6, "target_rank": 2, "interval": 2}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def adalora(**options):
    plugin = AdaLora(AdaLora.Options(**{**OPTIONS, **options}), "adalora")
    return plugin.adapt(AdapterRequest(loaded(model())))


def ranks(made):
    """Values left in each adapted layer."""
    return [
        int((each != 0).sum()) for name, each in made.model.named_parameters() if "lora_E" in name
    ]


def test_ranks_fall_to_their_target(tmp_path):
    made = adalora()
    run_training(tmp_path, made, rows(30), max_steps=20)
    kept = ranks(made)
    assert sum(kept) == 2 * len(kept)
    assert max(kept) <= 6 and len(set(kept)) > 1


@pytest.mark.filterwarnings("ignore:The following rank_pattern keys")  # of plain PEFT
@pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape")
def test_saved_and_reloaded(tmp_path):
    from peft import PeftModel

    made = adalora()
    _, result = run_training(tmp_path, made, rows(30), max_steps=20)
    with torch.no_grad():
        expected = made.model.eval()(input_ids=IDS).logits
        again = AdaLora(AdaLora.Options(), "adalora").load_external(loaded(model()), result.path)
        theirs = PeftModel.from_pretrained(model(), result.path)
        for found in (again.model, theirs.eval()):
            torch.testing.assert_close(found(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)
        merged = AdaLora(AdaLora.Options()).merge(again)
        torch.testing.assert_close(
            merged.model(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5
        )


def test_resumes_bit_for_bit(tmp_path):
    settings = {"data": rows(30), "max_steps": 12}
    whole = adalora()
    run_training(tmp_path / "whole", whole, save_steps=12, **settings)
    steps = []

    def stop(run):
        steps.append(1)
        return len(steps) >= 7

    with pytest.raises(Stopped):
        run_training(tmp_path / "parts", adalora(), stop=stop, **settings)
    parts = adalora()
    found = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    run_training(tmp_path / "parts", parts, checkpoint=found, save_steps=12, **settings)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_same_state(*(tmp_path / name / "checkpoints/step-12" for name in ("whole", "parts")))


def test_the_penalty_keeps_singular_vectors_orthogonal(tmp_path):
    def overlap(made):
        found = []
        for name, each in made.model.named_parameters():
            if "lora_A" in name:
                unit = torch.nn.functional.normalize(each.detach(), dim=1)
                found.append((unit @ unit.T - torch.eye(len(unit))).norm())
        return sum(found) / len(found)

    far = {"init_rank": 8, "target_rank": 7}
    made = {weight: adalora(orthogonality=weight, **far) for weight in (0.0, 5.0)}
    for weight, each in made.items():
        run_training(tmp_path / str(weight), each, rows(30), max_steps=20)
    assert overlap(made[5.0]) < 0.7 * overlap(made[0.0])


def test_too_few_steps_are_an_error(tmp_path):
    with pytest.raises(RecipeError, match="no step in which to prune ranks: the stage has 1"):
        run_training(tmp_path, adalora(warmup=0.9, final=0.05), rows(4), max_steps=1)


def test_options():
    with pytest.raises(ValueError, match="target_rank must be below"):
        AdaLora.Options(init_rank=4, target_rank=8)
    with pytest.raises(ValueError, match="leave no steps"):
        AdaLora.Options(warmup=0.5, final=0.5)
