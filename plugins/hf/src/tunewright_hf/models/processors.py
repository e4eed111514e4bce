"""Load a checkpoint's processor."""

import importlib.util
from pathlib import Path
from typing import Any

import transformers

from tunewright import RunError
from tunewright_hf.models.errors import first_line, one_line

__all__ = ["check_libraries", "has_processor", "load_processor"]

_INSTALL = "pip install 'tunewright-hf[media]'"
_HINT = f"{_INSTALL}, or family: {{media: false}} for text alone"


def check_libraries(place: str) -> None:
    """Raise RunError if torchvision or PyAV are missing, or if torchvision was built for another
    torch: then even transformers' text classes fail to import, with errors that do not say why."""
    for name in ("torchvision", "av"):
        if importlib.util.find_spec(name) is None:
            raise RunError(f"a model with media needs {name}", place=place, hint=_HINT)
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError, OSError) as error:
            problem = f"{name} is installed but broken: {first_line(error)}"
            hint = f"{_INSTALL}, of the same build as torch"
            raise RunError(problem, place=place, hint=hint) from error


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
