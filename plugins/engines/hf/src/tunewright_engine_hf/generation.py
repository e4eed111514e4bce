"""Generation in a thread that can be stopped, its tokens handed over as they come."""

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation import BaseStreamer

from tunewright.types import GenerateRequest, Reply, TemplateRequest
from tunewright_engine_hf.text import TextStream
from tunewright_hf.tokenization.encode import Tokeniser

if TYPE_CHECKING:
    from tunewright.run import Run


class Generator:
    """The trained model of a run, loaded once."""

    def __init__(self, run: "Run") -> None:
        loaded = run.load_policy()
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
        """Pieces of one answer. Closing the iterator ends the generation."""
        text = TextStream(self._decode, self._stop_strings + request.stop)
        finish_reason: Literal["stop", "length"] = "length"
        tokens = _Tokens()
        arguments = (self._prompt(request), request, tokens)
        worker = threading.Thread(target=self._generate, args=arguments, daemon=True)
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

    def _generate(self, prompt: list[int], request: GenerateRequest, tokens: "_Tokens") -> None:
        try:
            ids = torch.tensor([prompt], device=self._model.device)  # (1, T)
            if request.seed is not None:
                torch.manual_seed(request.seed)
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._config(request),
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
        """How to answer. How the checkpoint's own generation_config.json would sample does not
        count."""
        stop_ids = sorted(self._stop_ids)
        sampling: dict[str, Any] = {
            "do_sample": False,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 50,
        }
        if request.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "top_k": request.top_k,
            }
        return GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            repetition_penalty=request.repetition_penalty,
            eos_token_id=stop_ids or None,
            pad_token_id=stop_ids[0]
            if stop_ids
            else 0,  # one row has no padding, but generate asks
            use_cache=True,
            **sampling,
        )

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
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
