"""Checkpoints that are torn, changed, hostile, or hold something else: passed over, or one line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_resume import LENGTH, interrupted, no_pickle
from training_setup import loaded, model, run_training

from tunewright import RunError, TunewrightError

__all__ = ["no_pickle"]


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    run_training(tmp_path, loaded(model()), save_steps=6, **LENGTH)
    last = tmp_path / "checkpoints" / "step-12"
    (last / "weights.safetensors").write_bytes(b"torn")
    run, _ = run_training(tmp_path, loaded(model()), checkpoint=last, **LENGTH)
    said, started = run.events[:2]
    assert "step-12 is damaged, and kept as step-12.damaged" in said.message
    assert started.first_step == 6
    assert (tmp_path / "checkpoints/step-12.damaged/weights.safetensors").read_bytes() == b"torn"


def test_a_changed_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    _, whole = run_training(tmp_path / "whole", loaded(model()), save_steps=4, **LENGTH)
    run_training(tmp_path / "parts", loaded(model()), save_steps=4, **LENGTH)
    for step in (8, 12):
        file = tmp_path / f"parts/checkpoints/step-{step}/optimizer.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    checkpoint = tmp_path / "parts/checkpoints/step-12"
    run, again = run_training(
        tmp_path / "parts", loaded(model()), checkpoint=checkpoint, save_steps=4, **LENGTH
    )
    assert [event.level for event in run.events[:2]] == ["warning", "warning"]
    assert run.events[2].first_step == 4
    found = [path / "model/model.safetensors" for path in (tmp_path / "whole", tmp_path / "parts")]
    assert found[0].read_bytes() == found[1].read_bytes()
    assert again.metrics == whole.metrics


def test_hostile_files_in_a_checkpoint_are_never_opened(tmp_path, monkeypatch):
    run_training(tmp_path, loaded(model()), save_steps=6, **LENGTH)
    folder = tmp_path / "checkpoints" / "step-6"
    names = (
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "training_args.bin",
        "pytorch_model.bin",
        "adapter_model.bin",
    )
    for name in names:
        (folder / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    opened = []
    own = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened.append(self.name) or own(self, *a, **k)
    )
    shutil.rmtree(tmp_path / "checkpoints" / "step-12")
    run, _ = run_training(tmp_path, loaded(model()), checkpoint=folder, **LENGTH)
    assert run.events[0].first_step == 6
    assert "weights.safetensors" in opened  # the watch works
    assert not set(opened) & set(names)


def test_a_changed_file_stops_the_resumption(tmp_path):
    _, checkpoint = interrupted(tmp_path, loaded(model()), at=6, **LENGTH)
    file = checkpoint / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match="SHA-256 differs"):
        run_training(tmp_path, loaded(model()), checkpoint=checkpoint, **LENGTH)


# ---- checkpoints that hold something else --------------------------------------------------------


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$tensor", "$tuple", "$pairs", "$float", "files", "step", "0"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("text", ["", "[]", '{"files": ["a"]}', '{"files": {}}', "[" * 100_000])
def test_a_manifest_that_is_none_is_passed_over(tmp_path, text):
    run_training(tmp_path, loaded(model()), save_steps=6, **LENGTH)
    last = tmp_path / "checkpoints" / "step-12"
    (last / "manifest.json").write_text(text)
    run, _ = run_training(tmp_path, loaded(model()), checkpoint=last, **LENGTH)
    assert run.events[1].first_step == 6


@pytest.mark.slow
def test_whatever_a_checkpoint_holds_it_is_one_line(tmp_path):
    """With digests that fit, as one of another version or of a stranger would have them."""
    run_training(tmp_path / "whole", loaded(model()), save_steps=12, **LENGTH)
    good = tmp_path / "whole/checkpoints/step-12"
    number = iter(range(10_000))

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(["others", "rng-0", "optimizer", "weights", "manifest"]), st.data())
    def tried(name, data):
        folder = tmp_path / str(next(number))
        step = folder / "checkpoints/step-12"
        shutil.copytree(good, step)
        found = json.loads((step / f"{name}.json").read_text())
        key = data.draw(st.sampled_from(sorted(found)))
        value = data.draw(ODD)
        found = value if data.draw(st.booleans()) else found | {key: value}
        (step / f"{name}.json").write_text(json.dumps(found))
        if name != "manifest":
            manifest = json.loads((step / "manifest.json").read_text())
            content = (step / f"{name}.json").read_bytes()
            facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            manifest["files"][f"{name}.json"] = facts
            (step / "manifest.json").write_text(json.dumps(manifest))
        lines = ["good"]
        try:
            run_training(folder, loaded(model()), checkpoint=step, **LENGTH)
        except TunewrightError as error:
            lines = error.lines
        assert len(lines) == 1 and len(lines[0]) < 1500
        shutil.rmtree(folder)

    tried()
