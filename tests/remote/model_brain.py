"""Token ids of a real model for the stand-in, from the fields of the wire."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import torch
import xgrammar

from tunewright_engine_hf.guides import GuideState
from tunewright_hf.inference.rows import Row, RowSampling, Score
from tunewright_hf.inference.scheduler import Scheduler


class ModelBrain:
    """Generates with a model in a thread. Use as a context manager."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer
        self._scheduler = Scheduler(model, slots=16)
        self._new: list[Row] = []
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "ModelBrain":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    async def __call__(self, body: dict[str, Any]) -> AsyncIterator[tuple[int, dict[int, float]]]:
        loop, found = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def push(row: Row, token: int, score: Score | None) -> bool:
            loop.call_soon_threadsafe(found.put_nowait, (token, score))
            return True

        row = Row(
            body["prompt"],
            body["max_tokens"],
            _sampling(body),
            random=np.random.default_rng(body["seed"]),
            logprobs=body.get("logprobs"),
            on_token=push,
            guide=self._guide(body),
        )
        with self._changed:
            self._new.append(row)
            self._changed.notify_all()
        try:
            for _ in range(body["max_tokens"]):
                token, score = await found.get()
                yield token, dict((*score.top, (token, score.logprob))) if score else {}
        finally:
            row.cancelled = True
            self._scheduler.cancel(row)

    def score(self, body: dict[str, Any]) -> list[Any]:
        """Log-probabilities of the prompt's tokens as vLLM writes them."""
        ids = torch.tensor([body["prompt"]])
        with torch.inference_mode():
            logprobs = self._model(input_ids=ids).logits[0].float().log_softmax(-1)
        found: list[Any] = [None]
        for token, row in zip(body["prompt"][1:], logprobs, strict=False):
            top = row.topk(body["prompt_logprobs"])
            named = dict(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            named |= {token: float(row[token])}
            found.append({str(each): {"logprob": value} for each, value in named.items()})
        return found

    def _guide(self, body: dict[str, Any]) -> GuideState | None:
        text = (body.get("structured_outputs") or {}).get("grammar") or body.get("ebnf")
        if not text:
            return None
        size = self._model.config.vocab_size
        info = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=size, stop_token_ids=body["stop_token_ids"]
        )
        compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        return GuideState(compiler.compile_grammar(text), size, None)

    @torch.inference_mode()
    def _work(self) -> None:
        more = False
        while not self._closed:
            with self._changed:
                if not more:
                    self._changed.wait_for(lambda: self._new or self._closed)
                new, self._new = self._new, []
            self._scheduler.add(new)
            more = self._scheduler.step()


def _sampling(body: dict[str, Any]) -> RowSampling:
    bias = tuple((int(token), value) for token, value in (body["logit_bias"] or {}).items())
    names = ("temperature", "top_p", "min_p", "repetition_penalty")
    names += ("presence_penalty", "frequency_penalty")
    top_k = max(0, body["top_k"])
    return RowSampling(**{name: body[name] for name in names}, top_k=top_k, logit_bias=bias)
