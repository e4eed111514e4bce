"""An environment with the stand-in in place of vLLM and SGLang, and runs whose model it serves."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from engine_setup import INFO, Plain, byte_tokenizer
from remote.stand_in_server import Wire, app
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.recipe import Recipe
from tunewright.types import LoadedModel, StageResult
from tunewright_conformance.doubles import RECIPE, FakeRun
from tunewright_engine_remote import RemoteEngine, Sglang, Vllm
from tunewright_serve.server import bound_socket

SERVER = Path(__file__).with_name("stand_in_server.py")
REPLY = "Hello — there!"
ENGINES: dict[str, type[RemoteEngine]] = {"vllm": Vllm, "sglang": Sglang}


def environment(folder: Path) -> Path:
    """Programs that start the stand-in."""
    programs = folder / "environment/bin"
    programs.mkdir(parents=True)
    for name, shift, kind in (("vllm", "", "vllm"), ("python", "shift 2; ", "sglang")):
        script = f'#!/bin/sh\n{shift}exec "{sys.executable}" "{SERVER}" {kind} "$@"\n'
        programs.joinpath(name).write_text(script)
        programs.joinpath(name).chmod(0o755)
    return programs.parent


def ids(text: str) -> list[int]:
    found: list[int] = byte_tokenizer()(text).input_ids
    return found


def run_of(folder: Path, policy: StageResult | None = None, **recipe: Any) -> FakeRun:
    """A run on a model folder without weights, which the stand-in does not read."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    return FakeRun(
        folder=folder,
        trained=policy,
        plugins={"template": Plain(INFO)},
        recipe=Recipe.model_validate(RECIPE | {"model": str(model)} | recipe),
        loads=lambda **_: LoadedModel(None, byte_tokenizer()),
    )


def lora(folder: Path, **config: Any) -> Path:
    """An adapter's folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    found = {"peft_type": "LORA", "r": 9, "target_modules": ["q_proj"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(found))
    save_file({"q_proj.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    return folder


def small_llama(folder: Path, tokenizer: Any) -> None:
    """Write a model with heads that vLLM's kernels for CPUs take: of 32, where twins have 16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def opened(name: str, run: FakeRun, request: EngineRequest, **options: Any) -> InferenceEngine:
    kind = ENGINES[name]
    engine = kind(kind.Options(**options), name)
    return engine.open_engine(run=run, request=request)


@contextmanager
def running(wire: Wire) -> Iterator[str]:
    """Serve a wire in a thread of this process, and give its address."""
    with bound_socket("127.0.0.1", 0) as bound:
        config = uvicorn.Config(app(wire), log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def recorded(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text().splitlines()]
