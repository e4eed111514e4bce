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

SIZE = (112, 56)
#: name → x1, y1, x2, y2 in pixels: one column of the model's tokens each
BOXES = {
    "left": [0, 0, 28, 56],
    "middle left": [28, 0, 56, 56],
    "middle right": [56, 0, 84, 56],
    "right": [84, 0, 112, 56],
}


def picture(path: Path, name: str, number: int) -> Path:
    """A bright area."""
    made = Image.new("RGB", SIZE, (20, 20, 60))
    made.paste((240 - 5 * number, 220, 40), tuple(BOXES[name]))
    made.save(path)
    return path


@pytest.mark.long
def test_boxes(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        for name, box in BOXES.items():
            path = picture(tmp_path / f"{name}{number}.png", name, number)
            said = [("human", f"<image>{QUESTION}"), ("gpt", "<bbox>")]
            talk = [{"from": role, "value": value} for role, value in said]
            rows.append({"conversations": talk, "images": [path.name], "objects": {"bbox": [box]}})
    data = tmp_path / "boxes.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    training = {"epochs": 60, "learning_rate": 3e-3}
    made = recipe(tmp_path, data=[{"path": str(data)}], training=training)
    tunewright.train(made)
    with open_run(tmp_path / "run").call("engine", "open_engine", EngineRequest()) as engine:
        for name, box in BOXES.items():
            path = picture(tmp_path / f"new {name}.png", name, 3)
            talk = [Message("user", [MediaPart("image", str(path)), TextPart(QUESTION)])]
            request = GenerateRequest(Conversation(talk), temperature=0, max_new_tokens=30)
            text = "".join(piece.text for piece in answers(engine, request))
            found = parse_reply("Qwen/Qwen2-VL-2B-Instruct", text, None)["objects"]
            whole = [value / SIZE[index % 2] for index, value in enumerate(box)]
            assert found == {"ref": [], "bbox": [pytest.approx(whole)], "bbox_type": "norm1"}
