"""What `tunewright chat` and `serve` open: runs, checkpoints, adapters, models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tunewright
from tunewright import RecipeError, RunError, TunewrightError
from tunewright.events import Event, Notice
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.types import Conversation, Message
from tunewright_hf.inference.opening import open_target, parse_adapters
from tunewright_hf.models.export import save_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, `model`; a run that trained an adapter for it, `run`; and its adapter, `adapter`."""
    folder = tmp_path_factory.mktemp("opening")
    run = open_target("tiny", ["family=qwen"])
    loaded = run.load_policy()
    loaded.saves = "model"
    save_result(loaded, folder / "model", run.plugin("template"))
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(8)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tunewright.train(
        {
            "model": str(folder / "model"),
            "adapter": "lora",
            "template": "chatml",
            "data": [{"path": str(folder / "data.jsonl")}],
            "stage": "sft",
            "training": {"max_steps": 2, "save_steps": 1, "learning_rate": 0.05},
            "loggers": [],
            "output": str(folder / "run"),
        }
    )
    shutil.copytree(folder / "run/model", folder / "adapter")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def logits(target: str, *overrides: str) -> torch.Tensor:
    loaded = open_target(target, overrides).load_policy()
    ids = loaded.tokenizer("Say 3.", return_tensors="pt").input_ids
    with torch.no_grad():
        found: torch.Tensor = loaded.model(ids).logits[0, -1]
    return found


def test_a_run_its_result_its_last_checkpoint_and_the_adapter_alone_are_one(here: Path) -> None:
    run = logits("run")
    for target in ("run/model", "run/checkpoints/step-2", "adapter"):
        assert torch.equal(logits(target), run), target
    assert not torch.allclose(logits("run/checkpoints/step-1"), run)
    assert not torch.allclose(logits("model"), run)


def test_templates(here: Path) -> None:
    """A run's own; an adapter's and a model's from the chat template beside them; or as written."""
    expected = {"run": "chatml", "adapter": "chatml", "model": "qwen3"}
    for target, name in expected.items():
        run = open_target(target)
        run.load_policy()
        assert run.template is not None and run.template.name == name
    run = open_target("run", ["template=qwen"])
    run.load_policy()
    assert run.template is not None and run.template.name == "qwen"


def test_a_template_beside_an_adapter_that_nobody_knows_is_used(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "adapter", tmp_path / "adapter")
    own = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    (tmp_path / "adapter/chat_template.jinja").write_text(own)
    run = open_target(str(tmp_path / "adapter"), ["model=model"])
    request = GenerateRequest(Conversation([Message("user", "Hi")]))
    with run.call("engine", "open_engine", EngineRequest(slots=1)) as engine:
        assert engine.decode(engine.encode(request)) == "[user]Hi[assistant]"
    again = open_target(str(tmp_path / "adapter"), ["model=model"])
    alone = again.load(prior=again.trained, trainable=False, weights="none")  # as remote engines do
    assert alone.tokenizer.chat_template == own
    assert again.template is not None and again.template.name == "auto"


def test_a_model_without_a_recipe_answers_and_takes_adapters(here: Path) -> None:
    told: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.message)

    run = open_target("model", ["family.dtype=float32"], on_event=tell)
    asked = EngineRequest(slots=1, adapters=parse_adapters(["mine=run"]))
    with run.call("engine", "open_engine", asked) as engine:
        assert engine.models == ("model", "mine")
        for name in engine.models:
            request = GenerateRequest(Conversation([Message("user", "Hi")]), 4, model=name)
            assert list(answers(engine, request))[-1].finish_reason in ("length", "stop")
    assert run.trained is None and run.recipe.family.dtype == "float32"


def test_what_a_run_has_trained_is_there_for_engines(here: Path) -> None:
    adapter = open_target("adapter").trained
    assert adapter is not None and (adapter.path, adapter.saves) == (Path("adapter"), "adapter")
    run = open_target("run").trained
    assert run is not None and run.path == Path("run/model")
    with pytest.raises(RecipeError, match="state of a training"):
        _ = open_target("run/checkpoints/step-1").trained


@pytest.mark.parametrize(
    ("target", "overrides", "says"),
    [
        ("nowhere/at/all", [], "nowhere/at/all"),
        (".", [], r"holds nothing that answers \(expected a run folder"),
        ("run/checkpoints", [], "holds nothing that answers"),
        ("tiny", [], "does not tell its family"),
        ("model", ["template=chatlm"], "did you mean 'chatglm3'"),
        ("model", ["training.epochs=3"], "command line: training: belongs to training"),
        ("model", ["tempate=chatml"], r"tempate: unknown key \(did you mean 'template'"),
        ("model", ["family.dtipe=float32"], "did you mean 'dtype'"),
        ("adapter", ["adapter=full"], "is an adapter of type LORA, which lora reads"),
        ("adapter", ["model=nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_what_is_refused(here: Path, target: str, overrides: list[str], says: str) -> None:
    with pytest.raises(TunewrightError, match=says) as caught:
        open_target(target, overrides).load_policy()
    assert len(caught.value.lines) == 1


def test_a_model_without_a_template_names_family_and_remedy(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "model", tmp_path / "base")
    (tmp_path / "base/chat_template.jinja").unlink()
    (tmp_path / "base/tokenizer_config.json").write_text("{}")
    vocabulary = tmp_path / "base/tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace("<|im_", "<|no_"))
    with pytest.raises(RecipeError, match=r"no template is known for .*, of family qwen \(name"):
        open_target(str(tmp_path / "base")).load_policy()


def test_a_reward_model_has_scores_and_no_text(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "model", tmp_path / "reward")
    file = tmp_path / "reward/config.json"
    made = {"architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | made))
    run = open_target(str(tmp_path / "reward"))
    assert run.policy_head == "score"
    with pytest.raises(RecipeError, match="does not generate text"):
        run.load_policy()


def stranger(here: Path, tmp_path: Path, **fields: Any) -> str:
    """An adapter elsewhere, with other fields in its config."""
    shutil.copytree(here / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return str(tmp_path / "adapter")


@pytest.mark.parametrize("base", ["ABSOLUTE", "../inside/model", "/etc", "~", None, 3, "a\x1bb"])
def test_an_adapter_may_not_choose_any_folder_as_its_model(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Any
) -> None:
    """Links are resolved: a link out of the current folder is outside, too."""
    base = str(here / "model") if base == "ABSOLUTE" else base
    target = stranger(here, tmp_path, base_model_name_or_path=base)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").symlink_to(here)
    with pytest.raises(RecipeError, match="base_model_name_or_path") as caught:
        open_target(target)
    assert "model=" in caught.value.hint
    assert open_target(target, [f"model={here / 'model'}"]).recipe.model == str(here / "model")


def test_a_model_beside_the_adapter_is_found(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stranger(here, tmp_path, base_model_name_or_path="../base")
    shutil.copytree(here / "model", tmp_path / "base")
    monkeypatch.chdir("/")
    assert open_target(target).load_policy().model is not None


def test_a_type_of_adapter_that_is_not_installed(here: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="type 'LOHA', which no installed plugin reads"):
        open_target(stranger(here, tmp_path, peft_type="LOHA"))


def test_a_checkpoint_that_is_not_whole_or_of_another_model(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "run", tmp_path / "run")
    step = tmp_path / "run/checkpoints/step-2"
    with pytest.raises(RunError, match="is of another model"):
        open_target(str(step), ["adapter.targets=[q_proj]"]).load_policy()
    with pytest.raises(RecipeError, match="init pissa"):
        open_target(str(step), ["adapter.init=pissa"]).load_policy()
    (step / "weights.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="is not complete"):
        open_target(str(step)).load_policy()


def test_a_run_that_was_stopped_names_its_last_checkpoint(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "run", tmp_path / "run")
    file = tmp_path / "run/run.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps(state | {"stages": [], "status": "interrupted"}))
    with pytest.raises(RecipeError, match=r"its last checkpoint is .*checkpoints/step-2"):
        open_target(str(tmp_path / "run"))
    assert open_target(str(tmp_path / "run/checkpoints/step-2")).load_policy().model is not None


@pytest.mark.parametrize(
    ("given", "says"),
    [("x", "expected NAME=PATH"), ("b=/nowhere/at/all", "there is no folder")],
)
def test_adapters_that_are_refused(given: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        parse_adapters([given])
