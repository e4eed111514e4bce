"""Parse generated replies: thinking, text and tool calls. The inverse of rendering."""

from collections.abc import Sequence
from typing import Any

from tunewright.types import Message
from tunewright_hf.templates.info import TemplateInfo
from tunewright_hf.templates.reply_stream import ReplyStream

__all__ = ["parse"]


def parse(
    text: str,
    info: TemplateInfo,
    tools: Sequence[dict[str, Any]] | None = None,
    *,
    in_thinking: bool | None = None,
) -> Message:
    """Parse a generated text to an assistant message; a stop token at its end is removed.

    tools: available tools as OpenAI JSON schemas; []: none, nothing is parsed as a call; None:
    unknown. in_thinking: whether the prompt has opened the thinking; None: unknown, it has if the
    text closes what it does not open. A call that cannot be parsed stays text. White space around
    thinking and calls is dropped, as part of the format.
    """
    if in_thinking is None:
        markers = None if info.reply.thinking else info.thinking
        in_thinking = markers is not None and markers[1] in text
    stream = ReplyStream(info, tools, in_thinking=in_thinking)
    events = [*stream.push(text), *stream.finish()]
    joined = {
        kind: "".join(event.text for event in events if event.kind == kind)
        for kind in ("text", "reasoning")
    }
    calls = [event.call for event in events if event.call is not None]
    return Message("assistant", joined["text"], joined["reasoning"] or None, calls)
