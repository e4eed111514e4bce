"""GRPO and online DPO whose completions a server generates, with the weights of each step."""

import math
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from remote.setup import running, small_llama
from remote.stand_in_server import Wire
from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.context import Run
from tunewright.index import environment_folder
from tunewright_conformance.trial import Trial, go, recipe
from tunewright_grpo.importance import sampled_logps, truncated_ratios
from tunewright_hf.training.rollouts import Rollout

LORA = {"name": "lora", "rank": 4}


class Served:
    """A server's model: the run's own, and whatever it is told to load."""

    def __init__(self, asked: dict[str, Any], *, is_stale: bool = False) -> None:
        run = Run(resolve(asked | {"adapter": "full"}))
        self.base = run.load(trainable=False).model.eval()
        self.adapters: dict[str, Any] = {}
        self.is_stale, self.loads = is_stale, 0

    def changed(self, path: str, body: dict[str, Any]) -> str:
        if path.endswith("/unload_lora_adapter"):
            del self.adapters[body["lora_name"]]
        elif path.endswith("/load_lora_adapter"):
            self._load_adapter(body["lora_name"], body["lora_path"])
        elif path != "/reset_prefix_cache":
            folder = body.get("model_path") or body["kwargs"]["weights_path"]
            self._load_weights(folder)
        return ""

    def _load_weights(self, folder: str) -> None:
        from transformers import AutoModelForCausalLM

        self.loads += 1
        if not (self.is_stale and self.loads > 1):
            self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def _load_adapter(self, name: str, folder: str) -> None:
        import copy

        from peft import PeftModel

        self.loads += 1
        self.adapters[name] = PeftModel.from_pretrained(copy.deepcopy(self.base), folder).eval()

    async def answer(self, body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
        model = self.adapters.get(body.get("lora_path") or body["model"], self.base)
        random = np.random.default_rng(body["seed"])
        ids = list(body["prompt"])
        for _ in range(body["max_tokens"]):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
            logps = logits.log_softmax(-1)
            shares = (logits / body["temperature"]).softmax(-1).cumsum(-1).numpy()
            token = int(np.searchsorted(shares, random.random()))
            ids.append(token)
            yield token, {token: float(logps[token])}


STAGES: dict[str, dict[str, Any]] = {"grpo": {"num_generations": 2}, "online_dpo": {}}


def asked(
    folder: Path, kind: str, address: str, name: str = "grpo", **sections: Any
) -> dict[str, Any]:
    stage = {
        "name": name,
        **STAGES[name],
        "max_new_tokens": 6,
        "rewards": [{"name": "length", "target": 9}],
        "rollouts": {"engine": kind, "address": address},
    }
    made = recipe(stage, "prompts", folder, 8, sections, max_steps=3)
    return made | {"family": {**made["family"], "name": "qwen"}}


def trained(
    folder: Path, kind: str, name: str = "grpo", *, is_stale: bool = False, **sections: Any
) -> Any:
    sections = {"adapter": LORA, **sections}
    server = Served(asked(folder, kind, "http://x", name, **sections), is_stale=is_stale)
    wire = Wire(kind, server.answer, ["model"], changed=server.changed)
    # a server knows the adapters that it has loaded
    wire.models = Names(wire.models, server.adapters)
    with running(wire) as address:
        return go(asked(folder, kind, address, name, **sections)), wire, server


class Names(list[str]):
    def __init__(self, names: list[str], adapters: dict[str, Any]) -> None:
        super().__init__(names)
        self._adapters = adapters

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._adapters


def differences(trial: Trial) -> list[float]:
    return trial.metric("sampling/logp_difference")


@pytest.mark.parametrize("adapter", [LORA, "full"])
def test_the_server_has_the_weights_of_each_step(tmp_path: Path, adapter: Any) -> None:
    """It gives the log-probabilities that the training computes, after each step anew."""
    trial, wire, server = trained(tmp_path, "vllm", adapter=adapter)
    assert max(differences(trial)) < 1e-4
    assert trial.metric("sampling/importance_ratio") == pytest.approx([1.0] * 3, abs=1e-3)
    assert server.loads == 3
    paths = [path for path, _ in wire.asked if path != "/v1/completions"]
    if adapter == "full":
        assert paths == ["/collective_rpc", "/reset_prefix_cache"] * 3
    else:
        assert paths[:3] == ["/v1/load_lora_adapter"] * 2 + ["/v1/unload_lora_adapter"]
        assert list(server.adapters) == ["update-3"]
    assert not (trial.folder / "rollouts").exists()


def test_pairs_of_online_dpo(tmp_path: Path) -> None:
    """Two completions of each of four prompts, by the weights of each of three steps."""
    trial, wire, server = trained(tmp_path, "vllm", "online_dpo")
    assert server.loads == 3
    bodies = [body for path, body in wire.asked if path == "/v1/completions"]
    prompts = Counter(tuple(body["prompt"]) for body in bodies)
    assert len(bodies) == 3 * 4 * 2
    assert all(count % 2 == 0 for count in prompts.values())
    assert len({body["seed"] for body in bodies}) == len(bodies)
    assert len(trial.metric("rewards/margins")) == 3
    assert not (trial.folder / "rollouts").exists()


def test_stale_weights_are_seen(tmp_path: Path) -> None:
    """The measure of the test above, where a server ignores what it is told."""
    trial, _, _ = trained(tmp_path, "vllm", is_stale=True, adapter="full")
    first, *others = differences(trial)
    assert first < 1e-4
    assert min(others) > 10 * first


def test_completions_end_as_the_template_says(tmp_path: Path) -> None:
    """Greedy or not, stop tokens are part of what is trained, with their log-probabilities."""
    trial, wire, _ = trained(tmp_path, "vllm")
    bodies = [body for path, body in wire.asked if path == "/v1/completions"]
    assert all(body["logprobs"] == 0 for body in bodies)
    assert all(body["stop_token_ids"] for body in bodies)
    assert len({body["seed"] for body in bodies}) == len(bodies)
    assert {body["max_tokens"] for body in bodies} == {6}
    assert trial.metric("completions/mean_length")[0] > 0


def test_sglang_gives_no_log_probabilities(tmp_path: Path) -> None:
    """So nothing is corrected, and only a deterministic one takes seeds."""
    made = {"engine": "sglang", "deterministic": True}
    server = Served(asked(tmp_path, "sglang", "http://x", adapter=LORA))
    wire = Wire("sglang", server.answer, ["model"], changed=server.changed)
    wire.models = Names(wire.models, server.adapters)
    with running(wire) as address:
        with_seeds = asked(tmp_path / "a", "sglang", address, adapter=LORA)
        with_seeds["stage"]["rollouts"] = {**made, "address": address}
        trial = go(with_seeds)
        seeds = [body["seed"] for path, body in wire.asked if path == "/v1/completions"]
        assert None not in seeds
    assert "sampling/logp_difference" not in trial.logged[0].metrics


def test_a_server_without_development_mode(tmp_path: Path) -> None:
    server = Served(asked(tmp_path, "vllm", "http://x"))
    wire = Wire("vllm", server.answer, ["model"])
    with running(wire) as address, pytest.raises(RunError, match="needs VLLM_ALLOW_RUNTIME_LORA"):
        go(asked(tmp_path, "vllm", address))


@pytest.mark.long
@pytest.mark.skipif(
    not (environment_folder("vllm") / "bin/vllm").exists(),
    reason="there is no vLLM: tunewright env create vllm",
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("adapter", [LORA, "full"])
def test_a_real_vllm_has_the_weights_of_each_step(
    tmp_path: Path, adapter: Any, device: str
) -> None:
    """On a GPU, which training and engine share; on a CPU with a build of vLLM for it (see
    test_conformance.py)."""
    made = asked(tmp_path, "vllm", "http://x", adapter=adapter)
    tokenizer = Run(resolve(made | {"adapter": "full"})).load(trainable=False).tokenizer
    small_llama(tmp_path / "model", tokenizer)
    more = ["--enforce-eager", "--dtype", "float32"]
    more += ["--gpu-memory-utilization", "0.5"] if device == "cuda" else []
    made["stage"]["rollouts"] = {"engine": "vllm", "arguments": more}
    family = {"name": "llama", "device": device, "dtype": "float32"}
    template = {"name": "qwen3"}
    trial = go(made | {"model": str(tmp_path / "model"), "family": family, "template": template})
    assert max(differences(trial)) < 1e-4


@pytest.mark.parametrize(
    ("rollouts", "more", "said"),
    [
        ({}, {}, "expected the name of an engine"),
        ({"engine": "vlm"}, {}, "no installed plugin gives the engine 'vlm'"),
        ({"engine": "hf", "slots": 3}, {}, "slots: the engine hf has no options here"),
        ({"engine": "vllm", "slots": 3}, {}, "slots: unknown key"),
        ({"engine": "vllm", "merge": True}, {}, "merge does nothing"),
        ({"engine": "vllm"}, {"adapter": "ia3"}, "no adapter of type IA3"),
        (None, {"importance_cap": 2.0}, "importance_cap does nothing without rollouts"),
    ],
)
def test_what_is_wrong(tmp_path: Path, rollouts: Any, more: dict[str, Any], said: str) -> None:
    made = asked(tmp_path, "vllm", "http://x")
    made["stage"] |= {"rollouts": rollouts}
    adapter = more.pop("adapter", None)
    made["stage"] |= more
    with pytest.raises(RecipeError, match=said):
        resolve(made | ({"adapter": adapter} if adapter else {}))


def test_hf_is_the_default(tmp_path: Path) -> None:
    made = asked(tmp_path, "vllm", "http://x")
    made["stage"]["rollouts"] = {"engine": "hf"}
    named = go(made | {"output": str(tmp_path / "named")})
    del made["stage"]["rollouts"]
    assert go(made).losses == named.losses


def test_ratios() -> None:
    """At the position before each token; 1 where one is unknown; truncated at the cap."""
    first = Rollout([5, 6], [7, 8], "", True, logps=[math.log(0.5), math.nan])
    second = Rollout([5], [7, 8, 9], "", True, logps=[-1.0, -1.0, -1.0])
    sampled = sampled_logps([first, second], 5)
    assert sampled is not None
    assert sampled.shape == (2, 5)
    assert [[place for place, each in enumerate(row) if each == each] for row in sampled] == [
        [1],
        [0, 1, 2],
    ]
    logps = torch.full((2, 5), math.log(0.75))
    ratios = truncated_ratios(logps, sampled, 1.8)
    assert ratios[0].tolist() == pytest.approx([1, 1.5, 1, 1, 1])
    assert ratios[1].tolist() == pytest.approx([1.8, 1.8, 1.8, 1, 1])
    assert sampled_logps([Rollout([5], [6], "", True)], 3) is None
