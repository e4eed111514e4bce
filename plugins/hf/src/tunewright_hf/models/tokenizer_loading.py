"""Load a checkpoint's tokenizer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from tunewright import RunError
from tunewright_hf.models import checks, safety, slow_tokenizers
from tunewright_hf.models.errors import PUBLISHED, one_line
from tunewright_hf.models.tokenizer_json import check_tokenizer_json

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "tokenization_*.py",
)


def load(folder: Path, config: Any, trusted: bool, tables: Iterable[slow_tokenizers.Table]) -> Any:
    """The tokenizer of a checkpoint's folder. tables: as slow_tokenizers.convert takes them.

    Raises RunError if there is none, if it is unsafe, damaged, or needs a library that is missing.
    """
    file = slow_tokenizers.find(folder)
    tokenizer = None if file is None else slow_tokenizers.convert(file, tables)
    added: dict[str, int] = {}
    path = folder / "tokenizer.json"
    if tokenizer is None:
        if not trusted:
            safety.check_tokenizer(folder, [config.to_dict().get("tokenizer_class")])
        if not any(path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
            # transformers would make a tokenizer with no vocabulary
            problem = f"holds no tokenizer, none of {', '.join(_TOKENIZER_FILES)}"
            hint = "copy the files of the model's tokenizer there"
            raise RunError(problem, place=str(folder), hint=hint)
        slow_tokenizers.need_library(folder)
        added = check_tokenizer_json(path) if path.is_file() else {}
        with one_line("the tokenizer cannot be loaded", str(folder), PUBLISHED):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=trusted
            )
    with one_line("the tokenizer cannot encode a text", str(folder), PUBLISHED):
        tokenizer("Naïve 字 12,\n 🙂\t<s>")
    checks.check_added_tokens(tokenizer, added, path)
    return tokenizer
