"""Generation in a thread that can be stopped, its tokens handed over as they come.

Answers are generated one after the other, in the order in which their threads get the lock: between
its steps `generate` keeps state on the model (PEFT replaces methods of the model, RoPE that scales
with the length replaces its frequencies), so two answers that alternated would disturb each other.
"""

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation import BaseStreamer, LogitsProcessorList

from tunewright.types import GenerateRequest, Reply, TemplateRequest
from tunewright_engine_hf.text import TextStream
from tunewright_hf.models.sampling import sampling_processors
from tunewright_hf.tokenization.encode import Tokeniser

if TYPE_CHECKING:
    from tunewright.types import RunContext


class Generator:
    """The trained model of a run, loaded once. Thread-safe."""

    def __init__(self, run: "RunContext") -> None:
        loaded = run.load_policy()
        # generate fills in from here what a request's config leaves open, such as
        # no_repeat_ngram_size: only the request counts
        loaded.model.generation_config = GenerationConfig()
        self._lock = threading.Lock()
        self._run, self._model, self._tokenizer = run, loaded.model.eval(), loaded.tokenizer
        info = run.plugin("template").info
        self._tokeniser = Tokeniser(loaded.tokenizer, info)
        # a template's stop token ends an answer by its id, or by its text where it is no token
        vocabulary = loaded.tokenizer.get_vocab()
        self._stop_ids = {vocabulary[token] for token in info.stop if token in vocabulary}
        if loaded.tokenizer.eos_token_id is not None:
            self._stop_ids.add(loaded.tokenizer.eos_token_id)
        self._stop_strings = tuple(token for token in info.stop if token not in vocabulary)

    def reply(self, request: GenerateRequest) -> Iterator[Reply]:
        """Yield pieces of one answer. Closing the iterator ends the generation."""
        text = TextStream(self._decode, self._stop_strings + request.stop)
        finish_reason: Literal["stop", "length"] = "length"
        tokens = _Tokens()
        worker = threading.Thread(target=self._generate, args=(request, tokens), daemon=True)
        worker.start()
        try:
            for token in tokens:
                if token in self._stop_ids:
                    finish_reason = "stop"
                    break
                if piece := text.push(token):
                    yield Reply(piece)
                if text.stopped:
                    finish_reason = "stop"
                    break
        finally:
            tokens.stop()
            worker.join()
        yield Reply(text.finish(), finish_reason)

    def _generate(self, request: GenerateRequest, tokens: "_Tokens") -> None:
        try:
            with self._lock:
                prompt = self._prompt(request)
                ids = torch.tensor([prompt], device=self._model.device)  # (1, T)
                self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=self._config(request),
                    logits_processor=_sampling(request, len(prompt)),
                    streamer=tokens,
                    stopping_criteria=StoppingCriteriaList([tokens.criterion]),
                )
        except Exception as error:  # it belongs to the thread that reads the tokens
            tokens.fail(error)

    def _prompt(self, request: GenerateRequest) -> list[int]:
        rendered = self._run.call(
            "template",
            "format_template",
            TemplateRequest(
                request.conversation,
                add_generation_prompt=True,
                special_tokens=self._tokeniser.special_tokens,
                tokenizer=self._tokenizer,
            ),
        )
        return self._tokeniser.encode_prompt(rendered)

    def _config(self, request: GenerateRequest) -> GenerationConfig:
        stop_ids = sorted(self._stop_ids)
        return GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            do_sample=False,  # the sampling is in the logits processors
            repetition_penalty=request.repetition_penalty,
            eos_token_id=stop_ids or None,
            # one row has no padding, but generate asks
            pad_token_id=stop_ids[0] if stop_ids else 0,
            use_cache=True,
        )

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def _sampling(request: GenerateRequest, prompt_length: int) -> LogitsProcessorList | None:
    """Return what draws the request's tokens; None takes the likeliest."""
    if request.temperature == 0:
        return None
    return sampling_processors(
        [np.random.default_rng(request.seed)],  # fresh entropy where the seed is None
        prompt_length=prompt_length,
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
    )


class _Tokens(BaseStreamer):
    """New token ids on their way from the thread that generates to the one that reads."""

    def __init__(self) -> None:
        self._queue: queue.Queue[int | Exception | None] = queue.Queue()
        self._prompt_seen = False
        self.criterion = _Asked()

    def put(self, value: torch.Tensor) -> None:  # first the prompt (1, T), then new ids (1,)
        if self._prompt_seen:
            self._queue.put(int(value))
        self._prompt_seen = True

    def end(self) -> None:
        self._queue.put(None)

    def fail(self, error: Exception) -> None:
        self._queue.put(error)

    def stop(self) -> None:
        self.criterion.asked = True

    def __iter__(self) -> Iterator[int]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


class _Asked(StoppingCriteria):
    """Ends the generation when the reader has gone."""

    asked = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full(
            (input_ids.shape[0],), self.asked, dtype=torch.bool, device=input_ids.device
        )
