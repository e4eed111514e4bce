"""Grounding: a model learns to say where something is, in the form and scale of its family, and is
wrong about another picture."""

import json
from pathlib import Path

import pytest
from PIL import Image

import tunewright
from media.test_recipes import QUESTION, recipe
from tunewright.inference import EngineRequest, GenerateRequest, answers
from tunewright.run import open_run
from tunewright.types import Conversation, MediaPart, Message, TextPart
from tunewright_template.render import parse_reply

SIDE = 64
#: x1, y1, x2, y2 in pixels, one token of the model each: only its place tells one from another
BOXES = [[x, y, x + 32, y + 32] for x in (0, 32) for y in (0, 32)]


def picture(path: Path, box: list[int], number: int) -> Path:
    """A bright area."""
    made = Image.new("RGB", (SIDE, SIDE), (20, 20, 60))
    made.paste((240 - 5 * number, 220, 40), tuple(box))
    made.save(path)
    return path


@pytest.mark.long
def test_boxes(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        for place, box in enumerate(BOXES):
            path = picture(tmp_path / f"{place} {number}.png", box, number)
            said = [("human", f"<image>{QUESTION}"), ("gpt", "<bbox>")]
            talk = [{"from": role, "value": value} for role, value in said]
            rows.append({"conversations": talk, "images": [path.name], "objects": {"bbox": [box]}})
    data = tmp_path / "boxes.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    tunewright.train(
        recipe(
            tmp_path,
            family={"name": "qwen", "tiny_variant": "qwen3_vl", "train_projector": True},
            data=[{"path": str(data)}],
            training={"epochs": 60, "per_device_train_batch_size": 4},
        )
    )
    with open_run(tmp_path / "run").call("engine", "open_engine", EngineRequest()) as engine:
        for place, box in enumerate(BOXES):
            path = picture(tmp_path / f"new {place}.png", box, 7)
            talk = [Message("user", [MediaPart("image", str(path)), TextPart(QUESTION)])]
            request = GenerateRequest(Conversation(talk), temperature=0, max_new_tokens=30)
            text = "".join(piece.text for piece in answers(engine, request))
            found = parse_reply("Qwen/Qwen3-VL-2B-Instruct", text, None)["objects"]
            whole = [value / SIDE for value in box]
            assert found == {"ref": [], "bbox": [pytest.approx(whole)], "bbox_type": "norm1"}
