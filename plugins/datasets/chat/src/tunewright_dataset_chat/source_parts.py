"""Files of a large source as sources of their own: hosts prepare them at the same time."""

from dataclasses import replace

from tunewright_dataset_chat.source import Source

__all__ = ["split"]

LARGE = 2**30  # bytes from which files are prepared one by one


def split(source: Source, limit: int | None) -> list[Source]:
    """Its files, where these are several and large, or the source alone. limit: records that are
    read at most, which are counted over all files."""
    if source.hub or limit or source.entry.limit or len(source.files) < 2:
        return [source]
    sizes = [file.size() for file in source.files]
    if sum(sizes) < LARGE:
        return [source]
    files = [file for file, size in zip(source.files, sizes, strict=True) if size]
    return [
        replace(
            source,
            files=[file],
            notes=source.notes if number == 0 else [],
            part=f"{number + 1}/{len(files)}",
        )
        for number, file in enumerate(files)
    ]
