"""File type, compression and encoding from the name of a file."""

import codecs

from tunewright import RecipeError
from tunewright_dataset_chat import local_paths
from tunewright_dataset_chat.readers import PLAIN, READERS

_PACKED = (".gz", ".bz2", ".xz", ".zst")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
# files about data, without records
_BESIDE = (
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
)


def known_encoding(name: str) -> str:
    """Canonical name of the encoding. Raises ValueError if it is unknown."""
    try:
        found = codecs.lookup(name)
        "".encode(name)  # base64 and the like are not text encodings
    except LookupError as error:
        raise ValueError(
            f"there is no encoding {name!r}, expected one such as latin-1, cp1252, gbk"
        ) from error
    return found.name


def ending(name: str, place: str) -> tuple[str, str]:
    """File type and compression from the name of a file. Raises RecipeError if unknown."""
    kind, packed = _ending(name)
    if kind in READERS:
        return kind, packed
    last = local_paths.shown(name.replace("\\", "/").rpartition("/")[2])
    if _is_archive(name):
        hint = "unpack it, and give the folder"
        raise RecipeError(
            f"{last} is an archive, and archives are not opened", place=place, hint=hint
        )
    known = f"{', '.join(READERS)}, or one of {', '.join(PLAIN)} with {' or '.join(_PACKED)}"
    raise RecipeError(f"{last} has an unknown ending, expected {known}", place=place)


def can_read(name: str) -> bool:
    """Whether a file of a folder can hold records."""
    return _ending(name)[0] in READERS and name.rpartition("/")[2] not in _BESIDE


def _ending(name: str) -> tuple[str, str]:
    stem, dot, last = name.lower().rpartition(".")
    if (packed := dot + last) in _PACKED:
        kind = "." + stem.rpartition(".")[2]
        return (kind, packed) if kind in PLAIN else ("", "")
    return dot + last, ""


def _is_archive(name: str) -> bool:
    plain = name.lower()
    for packed in _PACKED:
        plain = plain.removesuffix(packed)
    return plain.endswith(_ARCHIVES)
