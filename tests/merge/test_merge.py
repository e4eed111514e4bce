"""`tunewright merge`: what the new folder holds, and what is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge.merging import facts, merge, train, weights
from tunewright import RecipeError, RunError
from tunewright_hf.inference.opening import open_target
from tunewright_merge import tensors
from tunewright_merge.methods import Settings, merged


def says(folder: Path) -> torch.Tensor:
    ids = AutoTokenizer.from_pretrained(folder)("Hello there", return_tensors="pt").input_ids
    with torch.no_grad():
        found: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
    return found


def test_linear_is_the_weighted_mean_and_loads(tuned: list[Path], tmp_path: Path) -> None:
    to = tmp_path / "merged"
    done = merge(f"{tuned[0]}=3", tuned[1] / "model", "--output", to)
    assert "holds the merged model" in done.output
    one, other, found = (weights(each) for each in (tuned[0] / "model", tuned[1] / "model", to))
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, 0.75 * one[name] + 0.25 * other[name], atol=1e-7)
        assert tensor.dtype == one[name].dtype
    assert says(to).isfinite().all()
    own = AutoTokenizer.from_pretrained(to)
    assert own.chat_template == AutoTokenizer.from_pretrained(tuned[0] / "model").chat_template
    assert not list(tmp_path.glob(".*"))
    assert open_target(str(to)).load_policy().model is not None


def test_the_card_says_what_was_merged(tuned: list[Path], tmp_path: Path) -> None:
    to = tmp_path / "merged"
    merge(tuned[0], tuned[1], "--method", "slerp", "--output", to, "--dtype", "bfloat16")
    found = facts(to)
    assert found["method"] == "slerp"
    assert str(tmp_path) not in (to / "merge.json").read_text()
    for run, model in zip(tuned, found["models"], strict=True):
        digest = hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest()
        assert model["sha256"] == {"model/model.safetensors": digest}
        assert digest in (to / "README.md").read_text()
    assert {str(each.dtype) for each in weights(to).values()} == {"torch.bfloat16"}
    assert json.loads((to / "config.json").read_text())["dtype"] == "bfloat16"
    assert not list(to.glob("*.bin"))


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_changes_of_a_base(base: Path, tuned: list[Path], tmp_path: Path, method: str) -> None:
    to = tmp_path / "merged"
    arguments = ["--base", base, "--method", method, "--lambda", "0.8", "--output", to]
    merge(f"{tuned[0]}=0.5", tuned[1], *arguments, "--shard-size", "100KB")
    assert len(list(to.glob("model-*.safetensors"))) > 2
    own, one, other, found = (
        weights(each) for each in (base / "model", tuned[0] / "model", tuned[1] / "model", to)
    )
    settings = Settings(method, [0.5, 1.0], 0.5, 0.8, 42)
    density = {} if method == "task_arithmetic" else {"density": 0.5}
    seed = {"seed": 42} if "dare" in method else {}
    assert facts(to)["options"] == {"lambda": 0.8, **density, **seed}
    changed = 0
    for number, name in enumerate(own):
        expected = merged([one[name], other[name]], own[name], settings, number)
        assert torch.equal(found[name], expected)
        changed += not torch.equal(expected, own[name])
    assert changed > len(own) / 2
    assert says(to).isfinite().all()


def test_adapters_are_merged_first(base: Path, lora: Path, tmp_path: Path) -> None:
    to, half = tmp_path / "merged", tmp_path / "half"
    merge(lora / "model", "--base", base, "--method", "task_arithmetic", "--output", to)
    merge(f"{lora}=1", f"{base}=1", "--output", half)
    name = "model.layers.0.self_attn.q_proj.weight"
    a, b = (
        each
        for key, each in sorted(weights(lora / "model").items())
        if "layers.0.self_attn.q_proj" in key
    )
    config = json.loads((lora / "model/adapter_config.json").read_text())
    change = config["lora_alpha"] / config["r"] * (b @ a)
    own = weights(base / "model")[name]
    assert change.abs().max() > 0.1
    assert torch.allclose(weights(to)[name], own + change, atol=1e-5)
    assert torch.allclose(weights(half)[name], own + change / 2, atol=1e-5)
    files = facts(to)["models"][1]["sha256"]
    assert list(files) == ["model/adapter_model.safetensors", "model/model.safetensors"]


@pytest.mark.parametrize("soup", ["last:3", "step-2,step-3,step-4"])
def test_a_soup_is_the_mean_of_checkpoints(tuned: list[Path], tmp_path: Path, soup: str) -> None:
    to = tmp_path / "soup"
    merge(tuned[0], "--soup", soup, "--output", to)
    models = [
        open_target(str(tuned[0] / f"checkpoints/step-{step}")).load_policy().model
        for step in (2, 3, 4)
    ]
    states = [dict(model.named_parameters()) for model in models]
    found = weights(to)
    for name, tensor in found.items():
        mean = sum(state[name] for state in states) / 3
        assert torch.allclose(tensor, mean, atol=1e-6), name
    assert not torch.equal(*(state["model.norm.weight"] for state in states[:2]))
    names = [each["name"] for each in facts(to)["models"]]
    assert sorted(names) == [f"run/checkpoints/step-{step}" for step in (2, 3, 4)]
    files = [sorted(each["sha256"]) for each in facts(to)["models"]]
    assert ["model/model.safetensors", "step-2/weights.safetensors"] in files


def test_the_best_checkpoints_are_those_with_the_least_loss(
    tuned: list[Path], tmp_path: Path
) -> None:
    events = [json.loads(line) for line in (tuned[0] / "events.jsonl").read_text().splitlines()]
    loss = {
        each["step"]: each["metrics"]["loss"] for each in events if each["event"] == "Evaluated"
    }
    run = tmp_path / "run"
    shutil.copytree(tuned[0], run)
    lines = []
    for each in events:  # the middle steps were the best
        if each["event"] == "Evaluated":
            each["metrics"]["loss"] = {1: 4.0, 2: 1.0, 3: 2.0, 4: 3.0}[each["step"]]
        lines.append(json.dumps(each) + "\n")
    (run / "events.jsonl").write_text("".join(lines))
    merge(run, "--soup", "best:2", "--output", tmp_path / "soup")
    names = [each["name"] for each in facts(tmp_path / "soup")["models"]]
    assert names == ["run/checkpoints/step-2", "run/checkpoints/step-3"]
    assert sorted(loss) == [1, 2, 3, 4]


def test_a_dry_run_writes_nothing(tuned: list[Path], lora: Path, tmp_path: Path) -> None:
    done = merge(f"{tuned[0]}=3", lora, "--output", tmp_path / "to", "--dry-run")
    assert "linear of 2 models" in done.output
    assert f"{tuned[0]}: weight 3\n" in done.output
    assert f"{lora}: weight 1, is first written as one model" in done.output
    assert "nothing was written" in done.output
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    def changed(name: str, change: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(base / "model", folder)
        change(folder)
        return folder

    def edit(file: str, **fields: Any) -> Any:
        def change(folder: Path) -> None:
            found = json.loads((folder / file).read_text())
            (folder / file).write_text(json.dumps(found | fields))

        return change

    def other_shape(folder: Path) -> None:
        found = weights(folder)
        found["model.norm.weight"] = torch.ones(3)
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    def other_name(folder: Path) -> None:
        found = weights(folder)
        found["model.other"] = found.pop("model.norm.weight")
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    def other_token(folder: Path) -> None:
        found = json.loads((folder / "tokenizer.json").read_text())
        found["added_tokens"][0]["content"] = "<other>"
        (folder / "tokenizer.json").write_text(json.dumps(found))

    cases = {
        "num_hidden_layers": edit("config.json", num_hidden_layers=77),
        "model_type": edit("config.json", model_type="llama", architectures=["LlamaForCausalLM"]),
        "rms_norm_eps": edit("config.json", rms_norm_eps=0.5),
        "has shape": other_shape,
        "has other tensors": other_name,
        "<other>": other_token,
    }
    for number, (message, change) in enumerate(cases.items()):
        other = changed(f"other{number}", change)
        with pytest.raises(RecipeError, match=message) as caught:
            merge(base, other, "--output", tmp_path / "to", "--set", "family=qwen")
        assert "\n" not in str(caught.value)
        assert str(other) in str(caught.value)
    assert not (tmp_path / "to").exists()
    assert not list(tmp_path.glob(".to*"))


def test_pickles_and_values_that_are_not_finite(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base / "model", other)
    found = weights(other)
    found["model.norm.weight"][0] = float("nan")
    save_file(found, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="not finite"):
        merge(base, other, "--output", tmp_path / "to")
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(RunError, match="pickle"):
        merge(base, other, "--output", tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_full_disk_leaves_nothing(
    tuned: list[Path], lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "save_file", no_room)
    with pytest.raises(RunError, match=r"to: cannot be written: No space left.*another disk"):
        merge(tuned[0], lora, "--output", tmp_path / "to")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--method", "tie"], "no method is called 'tie' .*ties"),
        (["a", "b", "--method", "ties"], "--base: ties merges changes of a base model"),
        (["a", "b", "--base", "c"], "linear takes no base model"),
        (["a"], "linear merges two models or more, found 1"),
        (["a", "b", "c", "--method", "slerp"], "slerp merges two models, found 3"),
        (["a=1", "b=-1"], "add up to 0"),
        (["a=inf", "b"], "expected MODEL or MODEL=0.5"),
        (["a", "b", "--density", "0.5"], "--density: goes with --method ties"),
        (["a", "b", "--lambda", "0.5"], "--lambda: goes with --method task_arithmetic"),
        (["a", "--base", "c", "--method", "ties", "--density", "0"], "more than 0, up to 1"),
        (["a", "b", "--dtype", "int8"], "expected auto, float32"),
        (["a", "b", "--shard-size", "5"], "expected a size such as 500MB"),
        (["a", "b", "--soup", "last:3"], "averages checkpoints of one run"),
        (["a", "--soup", "last:3"], "a: is no run folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        merge(*arguments, "--output", tmp_path / "to")


def test_mistakes_of_soups(tuned: list[Path], tmp_path: Path) -> None:
    def refused(soup: str) -> str:
        with pytest.raises(RecipeError) as caught:
            merge(tuned[0], "--soup", soup, "--output", tmp_path / "to")
        return str(caught.value)

    assert "asks for 9 checkpoints, and there are 4" in refused("last:9")
    assert "no checkpoint is 'step-7'" in refused("step-1,step-7")
    assert "expected last:N or best:N" in refused("last:1")
    assert "expected last:N or best:N" in refused("worst:2")
    bare = train(tmp_path, "tiny", max_steps=1)
    with pytest.raises(RecipeError, match="holds no complete checkpoint"):
        merge(bare, "--soup", "last:2", "--output", tmp_path / "to")
    with pytest.raises(RecipeError, match="exists already"):
        merge(tuned[0], tuned[1], "--output", bare)
