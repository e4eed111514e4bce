"""Load a checkpoint's processor."""

from pathlib import Path
from typing import Any

import transformers

from tunewright_hf.models.errors import one_line
from tunewright_hf.models.libraries import check_libraries

__all__ = ["has_processor", "load_processor"]


def has_processor(folder: Path) -> bool:
    """Whether a checkpoint has a processor's files: one that was trained on text may have none."""
    names = ("processor_config.json", "preprocessor_config.json")
    return any((folder / name).is_file() for name in names)


def load_processor(folder: Path, tokenizer: Any, trusted: bool) -> Any:
    """The checkpoint's processor, around this tokenizer. Raises RunError."""
    check_libraries(str(folder))
    with one_line("its processor cannot be loaded", str(folder)):
        processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=trusted)
    processor.tokenizer = tokenizer  # one for both, so that a new pad token holds for both
    return processor
