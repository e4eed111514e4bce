"""What the sandbox and those who read its text agree on. Apart from it, since a recipe is checked
without jinja2."""

from typing import Any

# Private-use characters that stand in rendered text until `marks.cut` takes them out. A span that
# is trained: TRAINED, the message's number (or nothing), NUMBERED, the text, TRAINED_END.
TRAINED, NUMBERED, TRAINED_END, UNTRUSTED, ANSWER, SPELLED_END, ESCAPE = map(
    chr, range(0xF7E0, 0xF7E7)
)


class TemplateMessage(dict[str, Any]):
    """A message as templates see it, which knows its place in the conversation.

    The sandbox hides names that begin with an underscore, so the place is no part of what a
    template can read.
    """

    __slots__ = ("_place",)
    _place: int

    def __init__(self, fields: dict[str, Any], place: int) -> None:
        super().__init__(fields)
        self._place = place
