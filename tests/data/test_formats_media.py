"""Images, videos, audio and boxes in every notation that data sets use."""

import base64
from typing import Any

import pytest

from data.converting import convert, messages, problem
from tunewright import RowError
from tunewright.types import (
    MediaPart,
    ObjectPart,
    Preference,
    Prompt,
    RowsRequest,
    Text,
    TextPart,
    Unpaired,
)

A = MediaPart("image", "a.png")
B = MediaPart("image", "b.png")


def talk(content: Any, answer: str = "yes", **columns: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **columns}


def content(record: dict[str, Any], name: str = "openai", number: int = 0) -> Any:
    return messages(name, record)[number].content


def test_llavas_json() -> None:
    record = {
        "id": "000000033471",
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A bus."},
        ],
    }
    assert content(record, "sharegpt") == [A, TextPart("\nWhat is it?")]
    for column, kind in (("video", "video"), ("audio", "audio")):
        turns = [
            {"from": "human", "value": f"Look.\n<{kind}>"},
            {"from": "gpt", "value": "Yes."},
        ]
        found = content({column: "x", "conversations": turns}, "sharegpt")
        assert found == [TextPart("Look.\n"), MediaPart(kind, "x")]  # type: ignore[arg-type]


def test_parts_without_a_file_take_the_next_one_of_the_column() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]
    assert content(talk(parts, images=["a.png", "b.png"])) == [A, TextPart("or"), B]
    padded = [{"type": "image", "text": None}, {"type": "text", "text": "<image>?"}]
    assert content(talk(padded, images=["a.png", "b.png"])) == [A, B, TextPart("?")]
    assert problem("openai", talk(parts, images=["a.png"])) == (
        "images: has 1, but the texts have 2 times <image>"
    )
    assert problem("openai", talk(parts)) == (
        "messages: a part of type image names no file, and the record has no column images"
    )


def test_features_of_hugging_face_are_bytes() -> None:
    feature = {"bytes": b"PNG", "path": "/home/somebody/a.png"}
    stored = MediaPart("image", "", b"PNG")
    assert content(talk("<image>", images=[feature])) == [stored]
    assert content(talk("<image>", image=b"PNG")) == [stored]
    assert content(talk("<image>", images=[{"bytes": None, "path": "a.png"}])) == [A]
    assert content(talk([{"type": "image", "image": feature}])) == [stored]
    sound = {"bytes": b"RIFF", "path": None}
    assert content(talk("<audio>", audio=sound)) == [MediaPart("audio", "", b"RIFF")]
    record = {"instruction": "<image>?", "output": "b", "images": [feature]}
    assert content(record, "alpaca") == [stored, TextPart("?")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"array": [0.0], "sampling_rate": 8}, "found an object with array, sampling_rate, expec"),
        ({"bytes": None, "path": None}, "found null, expected text"),
        ({"bytes": b"", "path": "a.png"}, "is empty, expected the bytes of the image"),
        ({"bytes": None, "path": "/etc/passwd"}, "leads out of the media folder"),
        (["a.png"], "found a list, expected text"),
        (7, "found 7, expected text"),
    ],
)
def test_what_is_no_medium(value: Any, said: str) -> None:
    assert said in problem("openai", talk("<image>", images=[value]))


def test_audio_of_the_api() -> None:
    data = base64.b64encode(b"RIFF").decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    assert content(talk([part])) == [MediaPart("audio", f"data:audio/wav;base64,{data}")]


def test_boxes_of_ms_swift() -> None:
    record = talk(
        "<image>Where is the <ref-object>?",
        "<bbox> and <bbox>, at <bbox>",
        images=["a.png"],
        objects={"ref": ["sheep"], "bbox": [[9.5, 2, 30, 40], [1, 2, 3, 4], [5, 6]]},
    )
    assert content(record) == [
        A,
        TextPart("Where is the "),
        ObjectPart("ref", "sheep"),
        TextPart("?"),
    ]
    assert content(record, number=1) == [
        ObjectPart("box", box=(9.5, 2.0, 30.0, 40.0)),
        TextPart(" and "),
        ObjectPart("box", box=(1.0, 2.0, 3.0, 4.0)),
        TextPart(", at "),
        ObjectPart("box", box=(5.0, 6.0)),
    ]
    record["objects"] = (
        '{"ref": ["sheep"], "bbox_type": "norm1", "image_id": [0, 1, 0],'
        ' "bbox": [[0, 0, 1, 1], [0, 0.5, 1, 1], [0.5, 0.5]]}'
    )
    second = content(record, number=1)[2]
    assert second == ObjectPart("box", box=(0.0, 0.5, 1.0, 1.0), scale="unit", image=1)


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"bbox": [[1, 2, 3, 4]] * 2}, "objects.bbox: has 2, but the texts have 1 times <bbox>"),
        ({"ref": ["a"]}, "objects.ref: has 1, but the texts have 0 times <ref-object>"),
        ({"bbox": [[1, 2, 3]]}, "objects.bbox[0]: has 3 numbers, expected x1, y1, x2, y2, or x, y"),
        ({"bbox": [[3, 2, 1, 4]]}, "objects.bbox[0]: ends left of its start or above it"),
        ({"bbox": [[1, 2, 3, -4]]}, "objects.bbox[0]: found -4, expected a number of 0 or more"),
        ({"bbox": [["1", 2, 3, 4]]}, "objects.bbox[0]: found '1', expected a number of 0 or more"),
        ({"bbox_type": "xywh"}, "objects.bbox_type: found 'xywh', expected real or norm1"),
        ({"bbox": [[1, 2, 3, 4]], "image_id": [0, 1]}, "objects.image_id: has 2, and bbox has 1"),
        ({"bbox": [[1, 2, 3, 4]], "image_id": [-1]}, "objects.image_id[0]: found -1, expected the"),
        ([1], "objects: found a list, expected an object"),
    ],
)
def test_boxes_that_cannot_be_used(objects: Any, said: str) -> None:
    record = talk("<image>", "<bbox>", images=["a.png"], objects=objects)
    assert problem("openai", record).startswith(said)


def test_marks_of_boxes_are_text_without_the_column() -> None:
    assert content(talk("<image>", "a <bbox>", images=["a.png"]), number=1) == "a <bbox>"


def test_unknown_keys_are_reported() -> None:
    told: list[tuple[list[str], list[str]]] = []

    def unread(columns: Any, keys: Any) -> None:
        told.append((list(columns), list(keys)))

    part = {"type": "image", "image": "a.png", "resized_width": 280}
    objects = {"ref": ["a"], "label": 3}
    convert("openai", talk([part, {"type": "text", "text": "<ref-object>"}], objects=objects,
                           image_size=[1, 2]), unread=unread)  # fmt: skip
    assert told == [(["image_size"], ["content.resized_width", "objects.label"])]
    assert RowsRequest(iter(()), "messages").unread is None


def test_media_of_other_rows() -> None:
    pair = {"prompt": "<image>?", "chosen": "a <image>", "rejected": "b", "images": ["a.png"]}
    row = convert("preference", pair)
    assert isinstance(row, Preference)
    assert row.prompt[0].content == [A, TextPart("?")] and row.chosen[0].content == "a <image>"
    assert "answers that are compared cannot have boxes" in problem(
        "preference", pair | {"objects": {"bbox": [[1, 2, 3, 4]]}}
    )
    row = convert("prompts", {"prompt": "<image>?", "image": "a.png", "solution": "c"})
    assert isinstance(row, Prompt)
    assert (row.messages[0].content, row.columns) == ([A, TextPart("?")], {"solution": "c"})
    row = convert("prompts", {"prompt": "<image>?", "images": ["a.png"], "image": "for a reward"})
    assert isinstance(row, Prompt) and row.columns == {"image": "for a reward"}
    objects = {"bbox": [[1, 2, 3, 4]]}
    record = {"prompt": "<image>?", "completion": "<bbox>", "label": True, "image": "a.png"}
    row = convert("unpaired", record | {"objects": objects})
    assert isinstance(row, Unpaired)
    assert row.completion[0].content == [ObjectPart("box", box=(1.0, 2.0, 3.0, 4.0))]


def test_documents_with_media() -> None:
    row = convert("text", {"text": "A bus: <image>, a cat: <image>.", "images": ["a.png", "b.png"]})
    assert isinstance(row, Text)
    assert row.text == [TextPart("A bus: "), A, TextPart(", a cat: "), B, TextPart(".")]
    row = convert("text", {"text": "What does <image> mean?"})
    assert isinstance(row, Text) and row.text == "What does <image> mean?"
    error = convert("text", {"text": "a", "image": "a.png"})
    assert isinstance(error, RowError) and "has 1, but the texts have 0" in error.problem
