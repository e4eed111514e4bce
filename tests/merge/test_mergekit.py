"""Merges equal those of mergekit, where it is installed: `pip install mergekit==0.1.5` adds two
packages to the tested versions."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from merge.merging import merge, weights

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        find_spec("mergekit") is None, reason="needs mergekit: pip install mergekit==0.1.5"
    ),
]


def reference(folder: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What mergekit writes, in a process of its own: it imports what warns."""
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump({**config, "dtype": "float32"}))
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(file), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return weights(folder)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("linear", []),
        ("slerp", []),
        ("task_arithmetic", ["--lambda", "0.7"]),
        ("ties", ["--density", "0.3", "--lambda", "0.7"]),
        # what DARE drops is drawn at random: nothing, with a density of 1
        ("dare_linear", ["--density", "1"]),
        ("dare_ties", ["--density", "1"]),
    ],
)
def test_equal(
    base: Path, tuned: list[Path], tmp_path: Path, method: str, options: list[str]
) -> None:
    models = [str(each / "model") for each in tuned]
    given = ["--method", method, *options, "--output", tmp_path / "own"]
    has_base = method not in ("linear", "slerp")
    merge(f"{models[0]}=0.3", f"{models[1]}=0.7", *given, *(["--base", base] if has_base else []))
    parameters = [
        {"model": model, "parameters": {"weight": weight}}
        for model, weight in zip(models, (0.3, 0.7), strict=True)
    ]
    config: dict[str, Any] = {"merge_method": method, "models": parameters}
    if method == "slerp":
        config |= {"base_model": models[0], "parameters": {"t": 0.7}}
    if has_base:
        named = dict(zip(options[::2], map(float, options[1::2]), strict=True))
        for each in parameters:
            each["parameters"]["density"] = named.get("--density", 1.0)
        config["base_model"] = str(base / "model")
        config["parameters"] = {"lambda": named.get("--lambda", 1.0)}
    expected = reference(tmp_path / "mergekit", config)
    own = weights(tmp_path / "own")
    assert own.keys() == expected.keys()
    for name, tensor in own.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-5, atol=1e-6), name
