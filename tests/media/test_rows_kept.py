"""Rows with media in the cache, from workers and streams, and of real data."""

from pathlib import Path
from typing import Any

import pytest

from media.running import build, talk, write
from media.samples import image
from media.test_rows import folder, pads
from shared import SHARED
from tunewright import RowError

__all__ = ["folder"]  # a fixture
AUDIO = {"name": "qwen", "tiny_variant": "qwen2_audio"}


def test_the_cache_depends_on_the_processor(folder: Path) -> None:
    write(folder, talk("<image>", images=["b.png"]))
    first = build(folder)
    assert any(note.endswith("from the cache") for note in build(folder).notes)
    family = {"name": "qwen", "tiny_variant": "qwen2_vl", "image_max_pixels": 784 * 10}
    smaller = build(folder, family=family)
    assert not any(note.endswith("from the cache") for note in smaller.notes)
    assert len(smaller.train[0]["input_ids"]) < len(first.train[0]["input_ids"])


def test_a_changed_file_is_measured_again(folder: Path) -> None:
    write(folder, talk("<image>", images=["a.png"]))
    assert pads(folder, build(folder).train[0]["input_ids"]) == 12
    image(folder / "a.png", (224, 140))
    assert pads(folder, build(folder).train[0]["input_ids"]) == 40
    (folder / "a.png").unlink()
    with pytest.raises(RowError, match=r"image 'a\.png' is not there"):
        build(folder)


@pytest.mark.long
def test_workers_give_the_same_rows(folder: Path) -> None:
    records = [talk(f"<image>{n}", images=[("a.png", "b.png")[n % 2]]) for n in range(2500)]
    write(folder, *records)
    one = build(folder, dataset={"cache": str(folder / "1")}).train
    two = build(folder, dataset={"cache": str(folder / "2"), "workers": 2}).train
    assert one.to_list() == two.to_list()


def test_streamed_rows_have_full_paths(folder: Path) -> None:
    write(folder, *(talk("<image>", images=["a.png"]) for _ in range(3)))
    stream = build(folder, dataset={"streaming": True}, training={"max_steps": 1}).train
    (window,) = stream.windows(0, 0, {})
    assert [row["media"] for row in window.rows] == [
        [{"kind": "image", "path": str((folder / "a.png").resolve())}]
    ] * 3


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"reads {SHARED / 'data'}")
@pytest.mark.parametrize(
    ("name", "media", "more"),
    [
        ("mllm_demo.json", 8, {}),
        ("mllm_video_demo.json", 3, {}),
        ("mllm_audio_demo.json", 3, {"family": AUDIO}),
    ],
)
def test_demo_data(tmp_path: Path, name: str, media: int, more: Any) -> None:
    data = build(tmp_path, data=[{"path": str(SHARED / "data" / name)}], **more)
    assert sum(len(row["media"]) for row in data.train) == media and not data.dropped


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"reads {SHARED / 'data'}")
def test_demo_data_in_parts(tmp_path: Path) -> None:
    """Its paths start one folder higher."""
    entry = {"path": str(SHARED / "data" / "v1_multimodal_demo.jsonl")}
    with pytest.raises(RowError, match=r"'data/mllm_demo_data/1\.jpg' is not there"):
        build(tmp_path, data=[entry])
    data = build(tmp_path, data=[entry | {"media_root": str(SHARED)}])
    assert sum(len(row["media"]) for row in data.train) > 0
