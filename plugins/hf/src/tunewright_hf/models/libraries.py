"""Libraries for media, which may be missing, or built for another torch."""

import importlib
import importlib.util

from tunewright import RunError
from tunewright_hf.models.errors import first_line

__all__ = ["check_libraries", "check_torchvision"]

_INSTALL = "pip install 'tunewright-hf[media]'"
_HINT = f"{_INSTALL}, or family: {{media: false}} for text alone"


def check_torchvision() -> None:
    """Raise RunError if torchvision is installed and cannot be imported. transformers imports it
    with the classes of text models too, and its own error does not say why that failed. To be
    called before anything of transformers is imported."""
    if importlib.util.find_spec("torchvision") is not None:
        _import("torchvision", "")


def check_libraries(place: str) -> None:
    """Raise RunError if a library that models with media need is missing or broken."""
    for name in ("torchvision", "av"):
        if importlib.util.find_spec(name) is None:
            raise RunError(f"a model with media needs {name}", place=place, hint=_HINT)
        _import(name, place)


def _import(name: str, place: str) -> None:
    try:
        importlib.import_module(name)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        problem = f"{name} is installed but broken: {first_line(error)}"
        hint = f"{_INSTALL}, of the same build as torch; models of text need none"
        raise RunError(problem, place=place, hint=hint) from error
