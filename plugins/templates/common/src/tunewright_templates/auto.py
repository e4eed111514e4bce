"""Template `auto`: the chat template that comes with the tokenizer."""

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from tunewright import Plugin, RecipeError, RowError, hookimpl
from tunewright.types import Conversation, Message, Rendered, TemplateRequest
from tunewright_hf.templates.control_tokens import ControlTokenEscaper, Cut
from tunewright_hf.templates.conversation import check_roles, place_of, template_data
from tunewright_hf.templates.info import ReplyForm, TemplateInfo
from tunewright_hf.templates.jinja_template import (
    CONTROL,
    TemplateOptions,
    plain_source,
    rendered,
)
from tunewright_hf.templates.render_worker import RenderWorker, WorkerError
from tunewright_hf.templates.reply_parser import parse
from tunewright_templates.dropped import DropCheck

_WORKER = RenderWorker()  # one per process; started at first use


class Auto(Plugin):
    """The tokenizer's own chat template, rendered in a worker process that can be killed.

    Such a template does not mark what is trained. Spans are found by rendering prefixes of the
    conversation: the prompt of an answer, with `add_generation_prompt`, must be a prefix of the
    whole text, and the answer must follow it, up to a stop token. If this fails, the row is an
    error. A row is also an error if the template leaves something out: a text, a tool, a call, or
    the thinking of the last answer if that is trained.
    """

    class Options(TemplateOptions):
        pass

    info = TemplateInfo(
        thinking=("<think>", "</think>"),
        media=True,
        notes="The chat template that comes with the tokenizer, whatever it is.",
        reply=ReplyForm(call=r"<tool_call>\s*", end=r"\s*</tool_call>"),
    )
    source = "auto"

    def __init__(self, options: Options, name: str = "") -> None:
        super().__init__(options, name)
        self._foreign: dict[
            str, _Foreign
        ] = {}  # by template source: a tokenizer may have a separate template for tools

    def parse_reply(self, text: str, tools: list[dict[str, Any]] | None = None) -> Message:
        """Parse a generated text to a message, with the thinking and call markers that most models
        use."""
        return parse(text, self.info, tools)

    def chat_template(self) -> None:
        """Return None: the tokenizer keeps its own template."""

    @hookimpl
    def format_template(self, request: TemplateRequest) -> Rendered:
        conversation = request.conversation
        if self.options.role_order == "strict":
            check_roles(conversation, request.add_generation_prompt)
        foreign = self._find(request.tokenizer, bool(conversation.tools))
        data = self._data(conversation, foreign)
        place = place_of(conversation)

        def render(data: dict[str, Any], prompt: bool = request.add_generation_prompt) -> str:
            return foreign.render(
                data, request.special_tokens | {"add_generation_prompt": prompt}, place
            )

        found = foreign.guard.render(data, render, place)
        self._check_written(
            conversation,
            request.add_generation_prompt,
            foreign,
            lambda planted: render(self._data(planted, foreign)),
            place,
        )
        found.trained = []  # a checkpoint's template cannot say what is trained
        if not request.add_generation_prompt:
            answers = [
                number for number, m in enumerate(conversation.messages) if m.role == "assistant"
            ]
            for number in answers if self.options.train_on == "all" else answers[-1:]:
                found.trained.append(foreign.find_answer(found, data, number, render, place))
        return rendered(conversation, found, self.options.train_on)

    def _data(self, conversation: Conversation, foreign: "_Foreign") -> dict[str, Any]:
        data = template_data(conversation, media=True)
        if foreign.reads_parts:
            for message in data["messages"]:
                if isinstance(message["content"], str):
                    message["content"] = [{"type": "text", "text": message["content"]}]
        if self.options.enable_thinking is not None:
            data = {"enable_thinking": self.options.enable_thinking} | data
        return data

    def _check_written(
        self,
        conversation: Conversation,
        prompt: bool,
        foreign: "_Foreign",
        render: Callable[[Conversation], str],
        place: str,
    ) -> None:
        """Raise RowError if the template leaves out part of the conversation."""
        last = conversation.messages[-1] if conversation.messages else None
        answered = not prompt and last is not None and last.role == "assistant"
        trained = answered and last is not None and last.loss_weight > 0
        if missing := foreign.dropped(conversation, trained, render):
            problem = f"the tokenizer's chat template does not write {missing}"
            hint = "name the template of the model's family, or take it out of the data"
            raise RowError(problem, place=place, hint=hint)

    def _find(self, tokenizer: Any, tools: bool) -> "_Foreign":
        if tokenizer is None or not tokenizer.chat_template:
            problem = "the tokenizer has no chat template of its own"
            raise RecipeError(
                problem, place="template", hint="name a template: a base model may take any"
            )
        source = tokenizer.get_chat_template(tools=[] if tools else None)
        if source not in self._foreign:
            self._foreign[source] = _Foreign(source, tokenizer)
        return self._foreign[source]


class _Foreign:
    """A checkpoint's template, and the control tokens of its tokenizer."""

    def __init__(self, source: str, tokenizer: Any) -> None:
        self._source = plain_source(source)
        control, words = set(), set()
        for token in tokenizer.added_tokens_decoder.values():
            if token.special or (token.content in source and CONTROL.fullmatch(token.content)):
                control.add(token.content)
            elif token.content in source and not token.content.isspace():
                words.add(token.content)
        self.guard = ControlTokenEscaper(control, words)
        self.dropped = DropCheck()
        self._stop = re.compile(
            "|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)"
        )

    @cached_property
    def reads_parts(self) -> bool:
        """Whether it writes a message's text only if the content is a list of parts, as those of
        some models with media."""
        probe = "what is said"

        def writes(content: Any) -> bool:
            data = {"messages": [{"role": "user", "content": content}], "tools": None}
            try:
                return probe in self.render(data, {"add_generation_prompt": False}, "")
            except RowError:
                return False

        return not writes(probe) and writes([{"type": "text", "text": probe}])

    def render(self, data: dict[str, Any], fixed: dict[str, Any], place: str) -> str:
        named = {name: value for name, value in fixed.items() if name.isidentifier()}
        try:
            return _WORKER.render(self._source, data | named)
        except WorkerError as error:
            if error.blamed == "template":
                raise RecipeError(
                    str(error), place="template auto", hint="name a template"
                ) from error
            raise RowError(str(error), place=place) from error

    def find_answer(
        self,
        whole: Cut,
        data: dict[str, Any],
        number: int,
        render: Callable[[dict[str, Any], bool], str],
        place: str,
    ) -> tuple[int, int, int]:
        """Find the span of message `number` in the whole text, up to its stop token. Raises
        RowError."""

        def until(count: int, prompt: bool) -> str:
            part = data | {"messages": data["messages"][:count]}
            return self.guard.plain(part, lambda marked: render(marked, prompt))

        prompt, through = until(number, True), until(number + 1, False)
        start = len(prompt)
        problem = "the tokenizer's chat template rewrites the messages before it"
        if whole.text.startswith(prompt) and through.startswith(prompt):
            spelled = {span.start for span in (*whole.untrusted, *whole.answers)}
            end = self._end(whole.text, through[start:], start, spelled)
            if end:
                return start, end, number
            problem = "the tokenizer's chat template does not show where it ends"
        raise RowError(
            f"message {number + 1} cannot be trained with template auto: {problem}",
            place=place,
            hint="name the template of the model's family, or set template.train_on to 'last'",
        )

    def _end(self, whole: str, answer: str, start: int, spelled: set[int]) -> int | None:
        stops = [
            match.end()
            for match in self._stop.finditer(whole, start)
            if match.start() not in spelled
        ]
        for end in stops:  # the first one that only other stop tokens follow
            if (
                answer.startswith(whole[start:end])
                and not self._stop.sub("", answer[end - start :]).strip()
            ):
                return end
        # Earlier answers may have lost their start, such as their thinking.
        if stops and answer.rstrip().endswith(whole[start : stops[0]]):
            return stops[0]
        return None
