"""What is said of rows whose text spells control tokens, and of text that was rendered
elsewhere."""

from collections.abc import Iterable
from typing import Any

from tunewright.types import Rendered, RenderedText
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

RENDERED = (
    "rows are rendered text: no template is applied, no token is added, and special tokens that "
    "they spell are tokens"
)


def of_conversation(texts: Iterable[Rendered], tokeniser: Tokeniser) -> set[str]:
    """What a row's texts spell that is plain text in them, in the words of a note, without the
    number of rows."""
    found = set()
    for text in texts:
        if text.answers or text.untrusted:
            prompts, answers = tokeniser.spelled(text)
            found |= {
                f"rows have an answer that spells {t}: it is trained as text" for t in answers
            }
            found |= {
                f"rows have a prompt that spells {t}: it is text there, no token "
                "(`format: rendered` takes rendered text as it is)"
                for t in prompts
            }
    return found


def of_rendered(
    row: RenderedText, tokens: Encoded, tokenizer: Any, stop: tuple[str, ...]
) -> set[str]:
    """What is said of a row of rendered text. stop: the template's stop tokens."""
    found = {RENDERED}
    ends = [token for token in (*stop, tokenizer.eos_token) if token]
    if row.trained and not row.text[: row.trained[-1][1]].rstrip().endswith(tuple(ends)):
        stops = " or ".join(dict.fromkeys(ends))
        found.add(f"rows of rendered text do not end what is trained with a stop token ({stops})")
    bos = tokenizer.bos_token_id
    if bos is not None and tokens.input_ids[0] != bos and tokenizer("a")["input_ids"][:1] == [bos]:
        found.add(f"rows of rendered text begin without {tokenizer.bos_token}")
    return found
