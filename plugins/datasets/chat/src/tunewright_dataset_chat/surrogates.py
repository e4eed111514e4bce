"""Halves of surrogate pairs, which JSON can spell and no tokenizer takes."""

from tunewright import RowError


def encodable(text: str) -> str:
    """The text. Raises RowError where half of a surrogate pair stands in it, which is no character:
    no tokenizer takes it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = ascii(text[max(0, error.start - 15) : error.start + 1])
            problem = f"has half of a surrogate pair, which is no character: {found}"
            hint = "a text was cut within an emoji, mostly: take the half out"
            raise RowError(problem, hint=hint) from error
    return text
