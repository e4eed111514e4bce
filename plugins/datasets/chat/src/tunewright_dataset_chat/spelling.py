"""Notes on rows whose text spells control tokens, and on rendered text."""

from collections.abc import Iterable
from typing import Any

from tunewright.types import Rendered, RenderedText
from tunewright_hf.tokenization.encode import Encoded, Tokeniser

RENDERED = (
    "rows of rendered text (no template is applied, no token is added, and special tokens that it "
    "spells are tokens)"
)


def of_conversation(texts: Iterable[Rendered], tokeniser: Tokeniser) -> set[str]:
    """Notes on control tokens that a row's texts spell and that become plain text."""
    found = set()
    for text in texts:
        if text.answers or text.untrusted:
            prompts, answers = tokeniser.spelled(text)
            found |= {
                f"rows with an answer that spells {t}, which is trained as text" for t in answers
            }
            found |= {
                f"rows with a prompt that spells {t}, which is text there, no token "
                "(`format: rendered` takes rendered text as it is)"
                for t in prompts
            }
    return found


def of_rendered(
    row: RenderedText, tokens: Encoded, tokenizer: Any, stop: tuple[str, ...]
) -> set[str]:
    """Notes on a row of rendered text. stop: the template's stop tokens."""
    found = {RENDERED}
    ends = [token for token in (*stop, tokenizer.eos_token) if token]
    if row.trained and not row.text[: row.trained[-1][1]].rstrip().endswith(tuple(ends)):
        stops = " or ".join(dict.fromkeys(ends))
        found.add(
            f"rows of rendered text whose trained part does not end with a stop token ({stops})"
        )
    bos = tokenizer.bos_token_id
    if bos is not None and tokens.input_ids[0] != bos and tokenizer("a")["input_ids"][:1] == [bos]:
        found.add(f"rows of rendered text without {tokenizer.bos_token} at the start")
    return found
