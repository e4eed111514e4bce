"""vLLM and SGLang: command lines, and fields of a request."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from tunewright import RowError
from tunewright.inference import Feature
from tunewright_hf.inference.rows import Row

#: path and JSON body of a request
Post = tuple[str, dict[str, Any]]
BASE = "base"  # the name of the model without adapters, in servers that we start
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes
_MOST_LOGPROBS = 20  # vLLM's default of --max-logprobs


@dataclass(slots=True)
class Launch:
    """Settings with which a server is started. adapters: name there → folder."""

    environment: Path
    model: str
    revision: str | None
    adapters: dict[str, Path]
    rank: int  # the largest of the adapters
    slots: int
    max_length: int | None
    trust_remote_code: bool
    arguments: list[str]
    folder: Path  # for files of its own
    updates: bool = False  # adapters and weights are replaced while it runs
    port: int = 0
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Server(Protocol):
    """Command line and request fields of one kind of server."""

    features: frozenset[Feature]
    arguments: frozenset[str]  # that are ours

    def command(self, launch: Launch) -> tuple[list[str], dict[str, str]]:
        """Return the command line, and variables of its environment."""

    def fields(self, row: Row, base: str) -> dict[str, Any]:
        """Return the fields of a request to /v1/completions that differ between servers."""

    def check(self, row: Row) -> None:
        """Raise RowError for what it cannot do."""

    def adapter_requests(self, name: str, folder: str, before: str | None) -> list[Post]:
        """Return the requests that load an adapter, in place of that before."""

    def weights_requests(self, folder: str) -> list[Post]:
        """Return the requests that load a model's weights in place of its own."""


def sampling_fields(row: Row) -> dict[str, Any]:
    """Fields that both servers know. All are given: their own defaults do not matter."""
    how = row.sampling
    return {
        "prompt": row.prompt,
        "stream": True,
        "max_tokens": row.max_new_tokens,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k or -1,
        "min_p": how.min_p,
        "repetition_penalty": how.repetition_penalty,
        "presence_penalty": how.presence_penalty,
        "frequency_penalty": how.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in how.logit_bias} or None,
        "stop_token_ids": sorted(row.stop_ids),
        "seed": row.seed,
        "skip_special_tokens": False,
        "return_token_ids": True,
    }


class VllmServer:
    """vLLM (0.33)."""

    features: frozenset[Feature] = frozenset({"generation", "logprobs", "prompt_logprobs"})
    arguments = frozenset(
        {"--host", "--port", "--uds", "--api-key", "--served-model-name", "--lora-modules"}
        | {"--enable-lora", "--max-lora-rank", "--max-num-seqs", "--generation-config"}
    )

    def command(self, launch: Launch) -> tuple[list[str], dict[str, str]]:
        found = [str(launch.environment / "bin/vllm"), "serve", launch.model]
        found += ["--host", "127.0.0.1", "--port", str(launch.port), "--served-model-name", BASE]
        found += ["--max-num-seqs", str(launch.slots), "--generation-config", "vllm"]
        found += ["--disable-uvicorn-access-log"]
        if launch.revision:
            found += ["--revision", launch.revision]
        if launch.max_length:
            found += ["--max-model-len", str(launch.max_length)]
        if launch.adapters:
            rank = next(rank for rank in _RANKS if rank >= launch.rank)
            found += ["--enable-lora", "--max-loras", str(len(launch.adapters))]
            found += ["--max-lora-rank", str(rank), "--lora-modules"]
            found += [f"{name}={folder}" for name, folder in launch.adapters.items()]
        if launch.trust_remote_code:
            found.append("--trust-remote-code")
        # the token is no argument, which other users of the machine could read
        variables = {"VLLM_API_KEY": launch.token, "VLLM_NO_USAGE_STATS": "1"}
        if launch.updates:
            variables |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
        return found + launch.arguments, variables

    def fields(self, row: Row, base: str) -> dict[str, Any]:
        # ignore_eos leaves stop_token_ids alone: exactly these end an answer
        found: dict[str, Any] = {"model": row.adapter or base, "ignore_eos": True}
        if row.guide is not None:
            found["structured_outputs"] = {"grammar": row.guide}
        if row.logprobs is not None:
            found |= {"logprobs": row.logprobs, "return_tokens_as_token_ids": True}
        return found

    def check(self, row: Row) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            if (getattr(row, name) or 0) > _MOST_LOGPROBS:
                problem = f"is {getattr(row, name)}, expected at most {_MOST_LOGPROBS} with vLLM"
                raise RowError(problem, place=name)

    def adapter_requests(self, name: str, folder: str, before: str | None) -> list[Post]:
        # of another name: prefixes are cached by it
        load = ("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        unload = [("/v1/unload_lora_adapter", {"lora_name": before})] if before else []
        return [load, *unload]

    def weights_requests(self, folder: str) -> list[Post]:
        # the only route to weights in files, of VLLM_SERVER_DEV_MODE
        reload = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        return [("/collective_rpc", reload), ("/reset_prefix_cache", {})]


class SglangServer:
    """SGLang (0.5.23). deterministic: as in the engine's options."""

    features: frozenset[Feature] = frozenset({"generation"})
    arguments = frozenset(
        {"--host", "--port", "--api-key", "--served-model-name", "--lora-paths", "--config"}
        | {"--max-running-requests", "--model-path", "--enable-deterministic-inference"}
    )

    def __init__(self, deterministic: bool) -> None:
        self._deterministic = deterministic

    def command(self, launch: Launch) -> tuple[list[str], dict[str, str]]:
        config = launch.folder / "sglang.yaml"  # the token is no argument that others could read
        config.write_text(yaml.safe_dump({"api-key": launch.token}), encoding="utf-8")
        found = [str(launch.environment / "bin/python"), "-m", "sglang.launch_server"]
        found += ["--config", str(config), "--model-path", launch.model]
        found += ["--host", "127.0.0.1", "--port", str(launch.port), "--served-model-name", BASE]
        found += ["--max-running-requests", str(launch.slots)]
        if launch.revision:
            found += ["--revision", launch.revision]
        if launch.max_length:
            found += ["--context-length", str(launch.max_length)]
        if launch.adapters:
            found += ["--max-loras-per-batch", str(len(launch.adapters)), "--lora-paths"]
            found += [f"{name}={folder}" for name, folder in launch.adapters.items()]
        if launch.trust_remote_code:
            found.append("--trust-remote-code")
        if self._deterministic:
            found.append("--enable-deterministic-inference")
        return found + launch.arguments, {}

    def fields(self, row: Row, base: str) -> dict[str, Any]:
        # ignore_eos would switch stop_token_ids off, too. The answer ends here in any case
        found: dict[str, Any] = {"model": base, "ignore_eos": not row.stop_ids}
        if row.adapter:
            found["lora_path"] = row.adapter
        if row.guide is not None:
            found["ebnf"] = row.guide
        return found

    def check(self, row: Row) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(row, name) is not None:
                raise RowError("SGLang's do not name tokens by their ids", place=name)
        if row.seed is not None and row.sampling.temperature and not self._deterministic:
            hint = "engine.deterministic: true"
            raise RowError("SGLang takes none unless it is deterministic", place="seed", hint=hint)

    def adapter_requests(self, name: str, folder: str, before: str | None) -> list[Post]:
        load = ("/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        unload = [("/unload_lora_adapter", {"lora_name": before})] if before else []
        return [load, *unload]

    def weights_requests(self, folder: str) -> list[Post]:
        return [("/update_weights_from_disk", {"model_path": folder, "flush_cache": True})]
