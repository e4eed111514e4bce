"""Lone surrogates, which JSON can spell and no tokenizer accepts."""

from tunewright import RowError


def encodable(text: str) -> str:
    """Return the text. Raises RowError if it contains a lone surrogate (half a character)."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = ascii(text[max(0, error.start - 15) : error.start + 1])
            problem = f"has half of a surrogate pair, which is no character: {found}"
            hint = "a text was cut within an emoji, mostly: take the half out"
            raise RowError(problem, hint=hint) from error
    return text
