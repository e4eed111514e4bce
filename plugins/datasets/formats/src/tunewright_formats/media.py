"""Images, videos, audio, and objects in images: columns of them, and their places in the texts.

Nothing is opened or fetched here.
"""

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from tunewright.types import MediaPart, Message, ObjectPart, Part, TextPart
from tunewright_formats.fields import bad, describe, from_json, listing, mapping, text
from tunewright_formats.record_reader import RecordReader

Kind = Literal["image", "video", "audio"]

#: kind → columns of which the first one present is read; ms-swift's and LLaVA's names
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "image": ("images", "image"),
    "video": ("videos", "video"),
    "audio": ("audios", "audio"),
}
MEDIA_COLUMNS = (*(name for names in COLUMNS.values() for name in names), "objects")

#: mark in a text → what stands there
MARKS = {
    "<image>": "image",
    "<video>": "video",
    "<audio>": "audio",
    "<ref-object>": "ref",
    "<bbox>": "box",
}
_MARK = re.compile("|".join(map(re.escape, MARKS)))
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # also Windows drive letters
_FILE_KEYS = frozenset(("bytes", "path", "url"))
_OBJECT_KEYS = frozenset(("ref", "bbox", "bbox_type", "image_id"))
_SCALES: dict[Any, Literal["pixels", "unit"]] = {None: "pixels", "real": "pixels", "norm1": "unit"}

#: kind → parts that wait for their places in the texts
Waiting = dict[str, deque[Part]]


# ---- one medium ----------------------------------------------------------------------------------


def media_part(value: Any, kind: Kind, field: str) -> MediaPart:
    """A medium given as a path below the media root, a data: URL of that kind, an object with a
    `url` or `path`, or the object {bytes, path} that Parquet files of images and audio have."""
    if isinstance(value, dict):
        if unknown := value.keys() - _FILE_KEYS:
            expected = "expected a path, or an object with path or bytes"
            bad(field, f"found an object with {', '.join(sorted(map(str, unknown)))}, {expected}")
        if value.get("bytes") is not None:  # then the path is only the file's former name
            return media_part(value["bytes"], kind, f"{field}.bytes")
        key = "url" if value.get("path") is None else "path"
        return MediaPart(kind, media_path(value.get(key), kind, field))
    if isinstance(value, bytes):
        if not value:
            bad(field, f"is empty, expected the bytes of the {kind}")
        return MediaPart(kind, "", value)
    return MediaPart(kind, media_path(value, kind, field))


def media_path(value: Any, kind: str, field: str) -> str:
    """A path below the media root, or a data: URL of that kind."""
    path = text(value, field)
    if path.startswith(f"data:{kind}/"):
        return path
    if _SCHEME.match(path):
        bad(
            field,
            f"{describe(path)} is a URL, which is not fetched",
            "save the file below the media folder",
        )
    parts = re.split(r"[/\\]", path)
    if parts[0] in ("", "~") or parts[0].startswith("~") or ".." in parts or "\0" in path:
        bad(field, f"{describe(path)} leads out of the media folder", "give a path below it")
    return path


# ---- the media of a record -----------------------------------------------------------------------


def place_media(messages: Sequence[Message], record: dict[str, Any], reader: RecordReader) -> None:
    """Insert the media and objects of the record's columns at their marks in the texts, and at
    parts of a message that name no file, in order.

    Without a column of that kind a mark stays text: people may write about `<image>`. Raises
    RowError if there are not as many as there are marks.
    """
    waiting, fields = _waiting(record, reader)
    given = {kind: len(parts) for kind, parts in waiting.items()}
    marks = dict.fromkeys(given, 0)
    for message in messages:
        if waiting or not isinstance(message.content, str):
            message.content = _filled(message.content, waiting, marks)
    for kind, count in given.items():
        if count != marks[kind]:
            mark = next(mark for mark, of_kind in MARKS.items() if of_kind == kind)
            bad(fields[kind], f"has {count}, but the texts have {marks[kind]} times {mark}")


def media_columns(record: dict[str, Any], reader: RecordReader) -> set[str]:
    """Columns of media and objects that `place_media` reads in this record."""
    found = {reader.first(record, names) for names in COLUMNS.values()}
    return {name for name in found if name} | {"objects"}


def document(written: str, record: dict[str, Any], reader: RecordReader) -> str | list[Part]:
    """A text without a conversation, with the media of the record's columns at their marks."""
    message = Message("user", written)
    place_media([message], record, reader)
    return message.content


def _waiting(record: dict[str, Any], reader: RecordReader) -> tuple[Waiting, dict[str, str]]:
    """Contents of the columns, and the field of each kind."""
    waiting: Waiting = {}
    fields: dict[str, str] = {}
    for kind, columns in COLUMNS.items():
        if (column := reader.first(record, columns)) is not None:
            value, field = record[column], reader.names[column]
            items = value if isinstance(value, list) else [value]
            waiting[kind] = deque(
                media_part(item, kind, f"{field}[{index}]") for index, item in enumerate(items)
            )
            fields[kind] = field
    if (value := record["objects"]) is not None:
        field = reader.names["objects"]
        refs, boxes = _objects(value, field, reader)
        waiting |= {"ref": deque(refs), "box": deque(boxes)}
        fields |= {"ref": f"{field}.ref", "box": f"{field}.bbox"}
    return waiting, fields


def _filled(content: str | list[Part], waiting: Waiting, marks: dict[str, int]) -> str | list[Part]:
    if isinstance(content, str):
        parts = _split(content, waiting, marks)
        return content if parts == [TextPart(content)] else parts or content
    found: list[Part] = []
    for part in content:
        if isinstance(part, TextPart):
            found += _split(part.text, waiting, marks)
        elif isinstance(part, MediaPart) and not part.path and part.data is None:
            found += _next(part.kind, waiting, marks)
        else:
            found.append(part)
    return found


def _split(written: str, waiting: Waiting, marks: dict[str, int]) -> list[Part]:
    parts: list[Part] = []
    start = 0
    for mark in _MARK.finditer(written):
        kind = MARKS[mark[0]]
        if kind not in waiting:
            continue
        if mark.start() > start:
            parts.append(TextPart(written[start : mark.start()]))
        parts += _next(kind, waiting, marks)
        start = mark.end()
    if start < len(written):
        parts.append(TextPart(written[start:]))
    return parts


def _next(kind: str, waiting: Waiting, marks: dict[str, int]) -> list[Part]:
    """The next part of this kind; none if there are fewer than marks, which are counted."""
    if kind not in waiting:
        bad(
            "messages",
            f"a part of type {kind} names no file, and the record has no column {kind}s",
        )
    marks[kind] += 1
    return [waiting[kind].popleft()] if waiting[kind] else []


# ---- objects in images ---------------------------------------------------------------------------


def _objects(
    value: Any, field: str, reader: RecordReader
) -> tuple[list[ObjectPart], list[ObjectPart]]:
    """Names and boxes in ms-swift's form: {ref, bbox, bbox_type, image_id}, or its JSON text."""
    found = mapping(from_json(value, field), field)
    reader.keys(found, _OBJECT_KEYS, "objects.")
    written = found.get("bbox_type")
    if not isinstance(written, str | None) or written not in _SCALES:
        bad(f"{field}.bbox_type", f"found {describe(written)}, expected real or norm1")
    refs = [
        ObjectPart("ref", text(name, f"{field}.ref[{index}]"))
        for index, name in enumerate(_list(found.get("ref"), f"{field}.ref"))
    ]
    boxes = _list(found.get("bbox"), f"{field}.bbox")
    images = _list(found.get("image_id"), f"{field}.image_id") or [0] * len(boxes)
    if len(images) != len(boxes):
        bad(f"{field}.image_id", f"has {len(images)}, and bbox has {len(boxes)}")
    return refs, [
        ObjectPart(
            "box",
            box=_box(box, f"{field}.bbox[{index}]"),
            scale=_SCALES[written],
            image=_number_of_image(image, f"{field}.image_id[{index}]"),
        )
        for index, (box, image) in enumerate(zip(boxes, images, strict=True))
    ]


def _list(value: Any, field: str) -> list[Any]:
    return listing(value, field) if value not in (None, []) else []


def _box(value: Any, field: str) -> tuple[float, ...]:
    numbers = listing(value, field)
    if len(numbers) not in (2, 4):
        bad(field, f"has {len(numbers)} numbers, expected x1, y1, x2, y2, or x, y of a point")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            bad(field, f"found {describe(number)}, expected a number of 0 or more")
    if len(numbers) == 4 and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        bad(field, "ends left of its start or above it, expected x1, y1, x2, y2")
    return tuple(map(float, numbers))


def _number_of_image(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        bad(field, f"found {describe(value)}, expected the number of an image, from 0")
    return value
