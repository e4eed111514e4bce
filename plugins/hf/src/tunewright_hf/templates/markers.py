"""Mark characters shared by the sandbox and the readers of its text. Separate, because recipes are
checked without jinja2."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewright.types import TextPart

# Private-use characters in rendered text, removed by `control_tokens.cut`. A trained span is:
# TRAINED, the message's number (or nothing), NUMBERED, the text, TRAINED_END.
TRAINED, NUMBERED, TRAINED_END, UNTRUSTED, ANSWER, SPELLED_END, ESCAPE = map(
    chr, range(0xF7E0, 0xF7E7)
)


class TemplateMessage(dict[str, Any]):
    """Message as templates see it, with its index in the conversation.

    The sandbox hides names that begin with an underscore, so templates cannot read the index.
    """

    __slots__ = ("_place",)
    _place: int

    def __init__(self, fields: dict[str, Any], place: int) -> None:
        super().__init__(fields)
        self._place = place


class MixedText(str):
    """Text of which some parts were written by the dataset: control tokens in these are tokens, and
    are not marked."""

    __slots__ = ("_parts",)
    _parts: "Sequence[TextPart]"

    def __new__(cls, parts: "Sequence[TextPart]") -> "MixedText":
        made = super().__new__(cls, "".join(part.text for part in parts))
        made._parts = parts
        return made

    def changed(self, change: Callable[[str], str]) -> str:
        """The text with all other parts changed."""
        return "".join(part.text if part.control else change(part.text) for part in self._parts)
