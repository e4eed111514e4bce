"""Bundles and single plugins, installed from a local index over a base that holds only torch."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from install.local_index import Place
from tunewright.kinds import kinds
from tunewright.registry import shipped_table
from workspace.members import ROOT, members

EXAMPLES = ROOT / "docs/examples"
ROWS = [{"instruction": f"What is {n}?", "output": f"The number {n}."} for n in range(8)]
RECIPE = """model: tiny
family: qwen
adapter: {name: lora, rank: 4}
data: [{path: data.jsonl}]
stage: sft
training: {max_steps: 2, per_device_train_batch_size: 2}
output: runs/mine
"""


def run(place: Place, *words: str, cwd: Path) -> str:
    done = place.run(*words, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def own_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    return folder


@pytest.mark.slow
def test_three_names_are_enough_for_a_lora_of_qwen(place: Place, tmp_path: Path) -> None:
    place.install("tunewright-qwen", "tunewright-sft", "tunewright-lora", tool="pip")
    folder = own_run(tmp_path / "work")
    listed = json.loads(run(place, "plugins", "list", "--json", cwd=folder))
    assert {"qwen", "sft", "lora", "full", "chat"} <= {plugin["name"] for plugin in listed}
    assert "llama" not in {plugin["name"] for plugin in listed}
    run(place, "train", "recipe.yaml", cwd=folder)
    assert (folder / "runs/mine/model/adapter_model.safetensors").is_file()
    # what is missing is said, with the command that brings it
    missing = place.run("train", "recipe.yaml", "adapter=dora2", "family=llama", cwd=folder)
    assert missing.returncode == 2
    assert "pip install tunewright-llama" in missing.stderr
    missing = place.run("serve", "runs/mine", cwd=folder)
    assert "pip install tunewright-serve" in missing.stderr


@pytest.mark.slow
def test_the_bundle_text_runs_the_quickstart(place: Place, tmp_path: Path) -> None:
    place.install("tunewright[text]")
    examples = shutil.copytree(EXAMPLES, tmp_path / "examples")
    run(place, "train", "quickstart.yaml", "training.max_steps=3", cwd=examples)
    said = run(place, "chat", "runs/quickstart", "--message", "Who are you?", cwd=examples)
    assert said.strip()
    listed = json.loads(run(place, "plugins", "list", "--json", cwd=examples))
    names = {(plugin["kind"], plugin["name"]) for plugin in listed}
    assert {("stage", "dpo"), ("family", "llama"), ("command", "evaluate")} <= names
    assert ("stage", "grpo") not in names


#: bundle → arguments of the command that runs its quickstart
QUICKSTARTS = {
    "vision": ("train", "media/colours.yaml", "--smoke"),
    "rl": ("train", "grpo.yaml", "--smoke"),
    "serve": ("serve", "--help"),
    "web": ("web", "--help"),
    "all": ("train", "grpo.yaml", "--smoke"),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("bundle", QUICKSTARTS)
def test_a_bundle_runs_its_quickstart(place: Place, tmp_path: Path, bundle: str) -> None:
    if bundle == "web" and not (ROOT / "plugins/commands/web").is_dir():
        pytest.skip("there is no tunewright-web in this checkout")
    place.install(f"tunewright[{bundle}]")
    examples = shutil.copytree(EXAMPLES, tmp_path / "examples")
    run(place, *QUICKSTARTS[bundle], cwd=examples)
    run(place, "plugins", "check", cwd=examples)


ALONE = [member for member in members() if not member.env and not member.is_bundle]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("member", ALONE, ids=lambda member: member.project["name"])
def test_a_plugin_can_be_imported_with_what_it_requires(
    member, place: Place, tmp_path: Path
) -> None:
    """Each family, stage and part alone."""
    place.install(member.project["name"])
    assert "can be imported" in run(place, "plugins", "check", cwd=tmp_path)


def test_defaults_bring_every_default_plugin() -> None:
    """What a recipe has without naming it is there with any stage."""
    file = ROOT / "plugins/bundles/defaults/pyproject.toml"
    needs = tomllib.loads(file.read_text("utf-8"))["project"]["dependencies"]
    brought = {need.partition(">")[0] for need in needs}
    known = shipped_table()["known"]
    wanted = {
        known[kind.name][name]
        for kind in kinds().values()
        if kind.required
        for name in kind.defaults
    }
    assert len(wanted) > 5
    assert wanted <= brought


def test_bundles_are_those_of_the_kernels_extras() -> None:
    extras = members()[0].project["optional-dependencies"]
    bundles = {m.project["name"] for m in members() if m.is_bundle} - {"tunewright-defaults"}
    wanted = {extra: f"tunewright-bundle-{extra}" for extra in extras}
    assert {extra: need.partition(">")[0] for extra, (need,) in extras.items()} == wanted
    assert set(wanted.values()) == bundles
