"""Token ids of what an environment says, after the ids that the model generated."""

from collections.abc import Sequence
from typing import Any

from tunewright import RunError
from tunewright.types import Conversation, Message, Rendered, RunContext, TemplateRequest
from tunewright_hf.tokenization.encode import Tokeniser

_ASKED = Message("user", "-")  # stands for the prompt, on which nothing after an answer depends


class TurnEncoder:
    """Encodes messages after an answer, with the run's template. Ids that were generated stay as
    they are: nothing is decoded and encoded again."""

    def __init__(self, run: RunContext, tokenizer: Any) -> None:
        self._run, self._tokenizer = run, tokenizer
        self._template = run.plugin("template")
        self._tokeniser = Tokeniser(tokenizer, self._template.info)

    def message(self, ids: Sequence[int], tools: list[dict[str, Any]]) -> Message:
        """The answer of these ids, parsed."""
        text = self._tokenizer.decode(ids, skip_special_tokens=False)
        found: Message = self._template.parse_reply(text, tools)
        return found

    def prompt(self, conversation: Conversation) -> list[int]:
        """Ids of a prompt, as data preparation makes them."""
        return self._tokeniser.encode_prompt(self._render(conversation))

    def following(
        self, answer: Message, messages: Sequence[Message], tools: list[dict[str, Any]]
    ) -> list[int]:
        """Ids from the end of an answer to the beginning of the next one, with these messages in
        between. tools: of the prompt. Raises RowError if the template cannot write them."""
        rendered = self._render(Conversation([_ASKED, answer, *messages], tools))
        if not rendered.trained:
            raise RunError("writes an answer of the model without a trained span", place="template")
        return self._tokeniser.encode_rest(rendered, rendered.trained[-1].end)

    def _render(self, conversation: Conversation) -> Rendered:
        special = self._tokeniser.special_tokens
        request = TemplateRequest(conversation, True, special, self._tokenizer)
        found: Rendered = self._run.call("template", "format_template", request)
        return found
