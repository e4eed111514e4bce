"""Prepared rows with media: exact lengths, paths, cutting, every kind of row, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from media.running import asked, build, talk, write
from media.samples import image, png, video, wav
from tunewright import RowError
from tunewright_hf.media.decode import decode
from tunewright_hf.media.expander import MediaProcessor

pytest.importorskip("torchvision", reason="transformers' processors of images and video")

PAD, VIDEO = "<|image_pad|>", "<|video_pad|>"


def count(request: Any, ids: Any, token: str) -> int:
    return list(ids).count(request.loaded.tokenizer.convert_tokens_to_ids(token))


def pads(folder: Path, ids: Any, token: str = PAD) -> int:
    return count(asked(folder)[1], ids, token)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image(tmp_path / "a.png", (112, 84))
    image(tmp_path / "b.png", (224, 140), "blue")
    return tmp_path


def test_lengths_are_those_of_the_whole_processor(folder: Path) -> None:
    video(folder / "c.mp4", 20, (64, 48))
    write(folder, talk("<image>and <video>?", "red", images=["a.png"], videos=["c.mp4"]))
    run, request = asked(folder)
    row = build(folder).train[0]
    processor = request.loaded.processor
    text = processor.tokenizer.decode(row["input_ids"])
    found = MediaProcessor(processor)
    shape = run.plugin("dataset").preview(run, request, 1).samples[0].media[1].shape
    frames = decode("video", str(folder / "c.mp4"), found.frames(shape))
    short = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{PAD}<|vision_end|>and <|vision_start|>{VIDEO}<|vision_end|>?<|im_end|>\n"
        "<|im_start|>assistant\nred<|im_end|>\n"
    )
    whole = processor(
        text=[short],
        images=[decode("image", str(folder / "a.png"))],
        videos=[frames],
        do_sample_frames=False,
    )["input_ids"][0]
    assert row["input_ids"] == list(whole), text
    assert row["media"] == [
        {"kind": "image", "path": str((folder / "a.png").resolve())},
        {"kind": "video", "path": str((folder / "c.mp4").resolve())},
    ]
    trained = [token for token in row["labels"] if token != -100]
    assert processor.tokenizer.decode(trained) == "red<|im_end|>"


def test_rows_without_media_stand_among_them(folder: Path) -> None:
    write(folder, talk("hello"), talk("<image>", images=["a.png"]), talk(f"I write {PAD}"))
    rows = build(folder).train
    assert [len(row["media"]) for row in rows] == [0, 1, 0]
    assert [pads(folder, row["input_ids"]) for row in rows] == [0, 12, 0]  # 112 x 84 of 28 x 28


CALL = {"name": "camera", "arguments": {"place": "garden"}}
TOOL_RESULTS: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [
            {"role": "user", "content": "What is there?"},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
            {
                "role": "tool",
                "content": [
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                    {"type": "text", "text": "just now"},
                ],
            },
            {"role": "assistant", "content": "A tree."},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "What is there?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "<image>just now"},
            {"from": "gpt", "value": "A tree."},
        ],
        "images": ["a.png"],
    },
}


@pytest.mark.parametrize("form", TOOL_RESULTS)
def test_images_in_tool_results(folder: Path, form: str) -> None:
    write(folder, TOOL_RESULTS[form])
    _, request = asked(folder)
    row = build(folder).train[0]
    text = request.loaded.processor.tokenizer.decode(row["input_ids"]).replace(PAD, "", 11)
    place = f"<|vision_start|>{PAD}<|vision_end|>just now"
    assert f"<tool_response>\n{place}\n</tool_response>" in text
    assert row["media"] == [{"kind": "image", "path": str((folder / "a.png").resolve())}]
    trained = [token for token in row["labels"] if token != -100]
    assert request.loaded.tokenizer.convert_tokens_to_ids(PAD) not in trained


@pytest.mark.parametrize(
    ("twin", "problem"),
    [
        ("qwen3", r"rows.jsonl:1: has image 'a.png', and these rows hold text only"),
        ("qwen2_audio", "has image 'a.png', and this model takes audio only"),
    ],
)
def test_models_without_a_place_for_them(folder: Path, twin: str, problem: str) -> None:
    write(folder, TOOL_RESULTS["openai"])
    with pytest.raises(RowError, match=problem):
        build(folder, family={"name": "qwen", "tiny_variant": twin})


KINDS: dict[str, Any] = {
    "text": {"text": "A bus: <image>, and so on.", "images": ["a.png"]},
    "preference": {"prompt": "<image>?", "chosen": "a", "rejected": "b", "images": ["a.png"]},
    "unpaired": {"prompt": "<image>?", "completion": "a", "label": True, "images": ["a.png"]},
    "prompts": {"prompt": "<image>?", "image": "a.png", "solution": "c"},
}


@pytest.mark.parametrize("rows", KINDS)
def test_every_kind_of_row_has_its_media(folder: Path, rows: str) -> None:
    write(folder, KINDS[rows])
    row = build(folder, rows).train[0]
    assert row["media"] == [{"kind": "image", "path": str((folder / "a.png").resolve())}]
    ids = row["input_ids"] if rows == "text" else row["prompt_ids"]
    assert pads(folder, ids) == 12
    for name in ("chosen_ids", "rejected_ids", "completion_ids"):
        assert pads(folder, row.get(name, [])) == 0
    if rows == "prompts":
        assert row["solution"] == "c"


def test_a_document_trains_its_text_alone(folder: Path) -> None:
    write(folder, KINDS["text"], {"text": f"What does {PAD} mean: <image>", "images": ["a.png"]})
    _, request = asked(folder, "text")
    rows = build(folder, "text").train
    decode_ = request.loaded.tokenizer.decode
    texts = [decode_([token for token in row["labels"] if token != -100]) for row in rows]
    assert texts == ["A bus: , and so on.<|im_end|>", f"What does {PAD} mean: <|im_end|>"]
    assert decode_(rows[0]["input_ids"]).startswith(f"A bus: <|vision_start|>{PAD}")
    assert [count(request, row["input_ids"], PAD) for row in rows] == [12, 12]


# ---- cutting -------------------------------------------------------------------------------------


def long(folder: Path) -> None:
    turns = [
        {"role": role, "content": text}
        for text in ("<image>one?", "<image>two?", "three?")
        for role, text in (("user", text), ("assistant", "yes"))
    ]
    write(folder, {"messages": turns, "images": ["b.png", "a.png"]})


def test_turns_lose_their_media_with_them(folder: Path) -> None:
    long(folder)
    full = build(folder).train[0]
    assert pads(folder, full["input_ids"]) == 40 + 12
    shorter = {"training": {"max_length": len(full["input_ids"]) - 1}}
    (row,) = build(folder, dataset={"truncate": "turns"}, **shorter).train
    assert [Path(part["path"]).name for part in row["media"]] == ["a.png"]
    assert pads(folder, row["input_ids"]) == 12
    shorter = {"training": {"max_length": len(row["input_ids"]) - 1}}
    (row,) = build(folder, dataset={"truncate": "turns"}, **shorter).train
    assert row["media"] == [] and pads(folder, row["input_ids"]) == 0


@pytest.mark.parametrize("policy", ["drop", "end", "start"])
def test_nothing_is_cut_through_a_medium(folder: Path, policy: str) -> None:
    write(folder, talk("<image>?", images=["b.png"]), talk("hello"))
    data = build(folder, dataset={"truncate": policy}, training={"max_length": 50})
    assert [row["media"] for row in data.train] == [[]]
    assert data.dropped == {"longer than max_length (50 tokens)": 1}


def test_documents_and_prompts_are_not_cut_through_a_medium(folder: Path) -> None:
    small = {"training": {"max_length": 12}}
    for rows in ("text", "preference"):
        write(folder, KINDS[rows], {"text": "a", "prompt": "a", "chosen": "b", "rejected": "c"})
        more = small if rows == "text" else {"training": {"max_length": 40}}
        data = build(folder, rows, dataset={"truncate": "start"}, **more)
        assert sum(data.dropped.values()) == 1 and [row["media"] for row in data.train] == [[]]


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (talk("<image>", images=["text.png"]), "image 'text.png' is not an image"),
        (talk("<image>", images=["bomb.png"]), "image 'bomb.png' has more than 40,000,000 pixels"),
        (talk("<image>", images=["missing.png"]), "image 'missing.png' is not there"),
        (talk("<audio>", audios=["a.wav"]), "has audio 'a.wav', and this model takes image and vi"),
        (
            talk("a", "see <image>", images=["a.png"]),
            "message 2 is from assistant and has image 'a.png', and models answer with text here",
        ),
        (talk("<image>", images=["data:image/png;base64,AA=B"]), "is not valid base64"),
        (talk("<image>", images=["data:image/png;base64,"]), "image in a data: URL is empty"),
        (talk("<image>", images=["data:image/png;base64,AAAA"]), "is not an image"),
    ],
)
def test_unusable_media_name_their_row(folder: Path, record: Any, said: str) -> None:
    (folder / "text.png").write_bytes(b"text")
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    wav(folder / "a.wav")
    write(folder, talk("hello"), record)
    with pytest.raises(RowError) as raised:
        build(folder)
    assert raised.value.place.endswith("rows.jsonl:2") and said in raised.value.problem
    data = build(folder, dataset={"on_bad_row": "skip"})
    assert len(data.train) == 1 and data.dropped == {"cannot be used": 1}


def test_a_model_of_text_takes_no_media_and_stores_none(folder: Path) -> None:
    write(folder, talk("<image>", images=["data:image/png;base64,AAAA"]))
    with pytest.raises(RowError, match=r"has image 'data', and these rows hold text only"):
        build(folder, family={"name": "qwen", "tiny_variant": "qwen2"})
    assert not (folder / "cache" / "media").exists()


def test_a_column_of_rewards_that_is_called_media(folder: Path) -> None:
    write(folder, KINDS["prompts"] | {"media": 1})
    with pytest.raises(RowError, match="media: is a column of the prepared rows, call it other"):
        build(folder, "prompts")
