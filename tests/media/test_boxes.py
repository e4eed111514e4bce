"""Objects in images are written in the form and the scale of the model's family, and read back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from media.running import asked, build, talk, write
from media.samples import image
from tunewright import RecipeError, RowError
from tunewright.types import ObjectPart, TextPart
from tunewright_hf.media.boxes import ReadObject, boxes_text, read_objects, seen_size
from tunewright_hf.media.shapes import Shape
from tunewright_hf.templates.info import BoxForm
from tunewright_template.render import parse_reply

pytest.importorskip("torchvision", reason="transformers' processors of images and video")

SHEEP = Shape("image", 200, 100)
GLM = "<|begin_of_box|>[[100,100,750,1000]]<|end_of_box|>"
LOCATION = BoxForm("<loc{y1:04}><loc{x1:04}><loc{y2:04}><loc{x2:04}>", scale=1023)
FORMS = {
    "per mille": (BoxForm("({x1},{y1}),({x2},{y2})"), "(100,100),(750,1000)"),
    "unit": (BoxForm("[{x1}, {y1}, {x2}, {y2}]", scale="unit"), "[0.100, 0.100, 0.750, 1.000]"),
    "digits": (LOCATION, "<loc0102><loc0102><loc1023><loc0767>"),
    "seen": (BoxForm("[{x1}, {y1}, {x2}, {y2}]", scale="seen"), "[40, 20, 300, 200]"),
}


def box_text(part: ObjectPart, image: Shape, form: BoxForm, seen: Any) -> TextPart:
    return boxes_text([(part, image)], form, seen)


def twice(shape: Shape) -> tuple[int, int]:
    return 2 * shape.width, 2 * shape.height


@pytest.mark.parametrize("name", FORMS)
def test_scales_and_reading_back(name: str) -> None:
    form, expected = FORMS[name]
    box = ObjectPart("box", box=(20.0, 10.0, 150.0, 100.0))
    assert box_text(box, SHEEP, form, twice).text == expected
    unit = ObjectPart("box", box=(0.1, 0.1, 0.75, 1.0), scale="unit")
    assert box_text(unit, SHEEP, form, twice).text == expected
    (found,) = read_objects(f"It is at {expected}.", form)
    across, down = twice(SHEEP) if form.scale == "seen" else (form.scale, form.scale)
    size = (1.0, 1.0) if form.scale == "unit" else (float(across), float(down))
    assert [value / size[n % 2] for n, value in enumerate(found.box)] == pytest.approx(
        [0.1, 0.1, 0.75, 1.0], abs=0.001
    )


def test_points_names_and_order_are_read_back() -> None:
    form = BoxForm("<box>({x1},{y1}),({x2},{y2})</box>", "<box>({x},{y})</box>", "<ref>{ref}</ref>")
    text = "<ref>a dog</ref><box>(1,2),(3,4)</box>, <ref>cat</ref> <box>(5,6)</box> and (7,8)"
    assert read_objects(text, form) == [
        ReadObject("a dog"),
        ReadObject(box=(1, 2, 3, 4)),
        ReadObject("cat"),
        ReadObject(box=(5, 6)),
    ]
    spaced = BoxForm("[{x1}, {y1}, {x2}, {y2}]", scale="unit")
    assert read_objects("[0.1,0.2 , 0.3,0.4]", spaced) == [ReadObject(box=(0.1, 0.2, 0.3, 0.4))]


GROUP = BoxForm("[{x1},{y1},{x2},{y2}]", "[{x},{y}]", open="<|a|>[", close="]<|b|>")


def test_several_boxes_in_one_pair_of_markers() -> None:
    parts = [
        (ObjectPart("box", box=(20.0, 10.0, 150.0, 100.0)), SHEEP),
        (ObjectPart("box", box=(50.0, 50.0)), Shape("image", 100, 100)),
    ]
    written = boxes_text(parts, GROUP, twice)
    assert written == TextPart("<|a|>[[100,100,750,1000],[500,500]]<|b|>", control=True)
    boxes = [ReadObject(box=(100, 100, 750, 1000)), ReadObject(box=(500, 500))]
    assert read_objects(f"Here: {written.text}.", GROUP) == boxes
    assert GROUP.tokens == ("<|a|>", "<|b|>")
    none = BoxForm("<{x1},{y1},{x2},{y2}>")
    assert boxes_text(parts[:1] * 2, none, twice).text == "<100,100,750,1000>" * 2


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("<|a|>[[1,2,3,4]]<|b|>", [(1, 2, 3, 4)]),
        ("<|a|>[1, 2, 3, 4]<|b|>", [(1, 2, 3, 4)]),  # GLM's brackets vary, as its makers say
        ("<|a|>(1,2,3,4), <5,6,7,8><|b|>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (
            "<|a|>[[1,2,3,4],\n [5,6,7,8]]<|b|> <|a|>[[9,9,9,9]]<|b|>",
            [(1, 2, 3, 4), (5, 6, 7, 8), (9,) * 4],
        ),
        ("<|a|>[[1,2,3,4]] and 5<|b|> [[1,2,3,4]]", []),  # words; no markers
        ("<|a|>[[1,2,3,4]]", []),  # cut off
    ],
)
def test_brackets_in_markers(text: str, boxes: list[tuple[float, ...]]) -> None:
    form = BoxForm("[{x1},{y1},{x2},{y2}]", open="<|a|>[", close="]<|b|>")
    assert read_objects(text, form) == [ReadObject(box=box) for box in boxes]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (ObjectPart("box", box=(0, 0, 203, 9)), "leaves its image, 200 x 100"),
        (ObjectPart("box", box=(0, 0, 1, 1.2), scale="unit"), "leaves its image, 0 to 1"),
        (ObjectPart("box", box=(5, 5)), "the template has no form for points"),
    ],
)
def test_boxes_that_cannot_be_written(part: ObjectPart, said: str) -> None:
    with pytest.raises(RowError, match=said):
        box_text(part, SHEEP, FORMS["per mille"][0], twice)
    rounded = ObjectPart("box", box=(0, 0, 200.6, 100.9))  # by its annotator
    assert box_text(rounded, SHEEP, FORMS["per mille"][0], twice).text == "(0,0),(1000,1000)"


def test_the_seen_size_is_that_of_the_processor() -> None:
    transformers = pytest.importorskip("transformers")
    size = {"shortest_edge": 56 * 56, "longest_edge": 1_003_520}
    images = transformers.Qwen2VLImageProcessor(size=size)
    seen = seen_size(SimpleNamespace(image_processor=images))
    assert seen(Shape("image", 5000, 3000)) == (1288, 756)
    box = ObjectPart("box", box=(10, 20, 2500, 1500))
    form = FORMS["seen"][0]
    assert box_text(box, Shape("image", 5000, 3000), form, seen).text == "[3, 5, 644, 378]"
    other = transformers.CLIPImageProcessor()
    with pytest.raises(RecipeError, match="does not tell these"):
        seen_size(SimpleNamespace(image_processor=other))(SHEEP)


def test_forms_are_checked() -> None:
    whole = {"box": "{x1}{y1}{x2}{y2}"}
    for declared, place, said in (
        ({"box": "{x1}"}, "template.boxes.box", "expected {x1}, {y1}, {x2}, {y2}"),
        (whole | {"ref": "a"}, "template.boxes.ref", "expected {ref}"),
        (whole | {"scale": 0}, "template.boxes.scale", "expected a number, seen or unit"),
        (whole | {"points": "a"}, "template.boxes", "unknown: points"),
        (whole | {"open": "a"}, "template.boxes", "has only one of open and close"),
        (whole | {"separator": ";"}, "template.boxes.separator", "needs open and close"),
    ):
        with pytest.raises(RecipeError) as raised:
            BoxForm.read(declared, "template.boxes")
        assert (raised.value.place, raised.value.problem) == (place, said)


# ---- in rows -------------------------------------------------------------------------------------

OBJECTS = {"ref": ["sheep"], "bbox": [[20, 10, 150, 100], [100, 50]]}


def grounded(
    folder: Path, objects: Any = OBJECTS, question: str = "", variant: str = "qwen2_vl"
) -> Any:
    """Text of a row, its special tokens, and its trained text."""
    image(folder / "a.png", (200, 100))
    question = question or "<image>Where is the <ref-object>?"
    write(folder, talk(question, "<bbox> <bbox>", images=["a.png"], objects=objects))
    family = {"name": "qwen", "tiny_variant": variant}
    _, request = asked(folder, family=family)
    row = build(folder, family=family).train[0]
    tokenizer = request.loaded.tokenizer
    special = [tokenizer.decode([i]) for i in row["input_ids"] if i in tokenizer.all_special_ids]
    trained = tokenizer.decode([label for label in row["labels"] if label != -100])
    return tokenizer.decode(row["input_ids"]), special, trained


def test_boxes_of_qwen2_vl_are_tokens(folder: Path) -> None:
    text, special, trained = grounded(folder)
    assert "Where is the <|object_ref_start|>sheep<|object_ref_end|>?" in text
    assert trained == (
        "<|box_start|>(100,100),(750,1000)<|box_end|> <|box_start|>(500,500)<|box_end|><|im_end|>"
    )
    assert [special.count(f"<|{name}|>") for name in ("object_ref_start", "box_start")] == [1, 2]


def test_boxes_of_qwen2_5_vl_are_pixels(folder: Path) -> None:
    _, request = asked(folder_with(folder), family={"name": "qwen", "tiny_variant": "qwen2_5_vl"})
    width, height = seen_size(request.loaded.processor)(SHEEP)
    _, _, trained = grounded(folder, variant="qwen2_5_vl")
    corner = f"{round(0.1 * width)}, {round(0.1 * height)}, {round(0.75 * width)}, {height}"
    assert trained.startswith(f"[{corner}] [{round(width / 2)}, {round(height / 2)}]")


@pytest.mark.parametrize(
    ("checkpoint", "family", "variant", "box", "point"),
    [
        ("Qwen/Qwen3.5-4B", "qwen", "qwen3_5_media", "[100, 100, 750, 1000]", "[500, 500]"),
        ("Qwen/Qwen3.6-35B-A3B", "qwen", "qwen3_5_moe_media", "[100, 100, 750, 1000]", ""),
        ("zai-org/GLM-4.5V", "chatglm", "glm4v_moe", GLM, ""),
        ("zai-org/GLM-4.1V-9B-Thinking", "chatglm", "glm4v", GLM, ""),
    ],
)
def test_boxes_of_other_families(
    folder: Path, checkpoint: str, family: str, variant: str, box: str, point: str
) -> None:
    """They are written in answers, and `template parse` reads them back by the checkpoint's id."""
    objects = {"ref": ["sheep"], "bbox": [[20, 10, 150, 100], *([[100, 50]] if point else [])]}
    image(folder / "a.png", (200, 100))
    question, answer = "<image>Where is the <ref-object>?", "<bbox> <bbox>" if point else "<bbox>"
    write(folder, talk(question, answer, images=["a.png"], objects=objects))
    chosen = {"name": family, "tiny_variant": variant}
    _, request = asked(folder, family=chosen)
    row, tokenizer = build(folder, family=chosen).train[0], request.loaded.tokenizer
    trained = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert f"{box} {point}".strip() in trained
    assert "Where is the sheep?" in tokenizer.decode(row["input_ids"])
    if family == "chatglm":
        start = tokenizer.convert_tokens_to_ids("<|begin_of_box|>")
        assert row["labels"].count(start) == 1 and start in tokenizer.all_special_ids
    found = parse_reply(checkpoint, trained, None)["objects"]
    boxes = [[0.1, 0.1, 0.75, 1.0], *([[0.5, 0.5]] if point else [])]
    assert found == {"ref": [], "bbox": boxes, "bbox_type": "norm1"}


INTERNVL = "<ref>sheep</ref><box>[[100, 100, 750, 1000], [0, 0, 500, 500]]</box>"
GLM_TWO = "sheep<|begin_of_box|>[[100,100,750,1000],[0,0,500,500]]<|end_of_box|>"


@pytest.mark.parametrize(
    ("checkpoint", "family", "variant", "written"),
    [
        ("zai-org/GLM-4.5V", "chatglm", "glm4v_moe", GLM_TWO),
        ("OpenGVLab/InternVL3-8B-hf", "internvl", "internvl", INTERNVL),
    ],
)
def test_several_boxes_of_an_object(
    folder: Path, checkpoint: str, family: str, variant: str, written: str
) -> None:
    """`<bbox><bbox>` are one pair of markers in families that write them so, and read back."""
    objects = {"ref": ["sheep"], "bbox": [[20, 10, 150, 100], [0, 0, 100, 50]]}
    image(folder / "a.png", (200, 100))
    write(
        folder, talk("<image>Where?", "<ref-object><bbox><bbox>", images=["a.png"], objects=objects)
    )
    chosen = {"name": family, "tiny_variant": variant}
    _, request = asked(folder, family=chosen)
    row, tokenizer = build(folder, family=chosen).train[0], request.loaded.tokenizer
    trained = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert written in trained
    found = parse_reply(checkpoint, trained, None)["objects"]
    refs = ["sheep"] if "<ref>" in written else []
    boxes = [[0.1, 0.1, 0.75, 1.0], [0.0, 0.0, 0.5, 0.5]]
    assert found == {"ref": refs, "bbox": boxes, "bbox_type": "norm1"}


def folder_with(folder: Path) -> Path:
    write(folder, talk("a"))
    return folder


def test_names_and_questions_that_spell_tokens_are_text(folder: Path) -> None:
    objects = OBJECTS | {"ref": ["<|im_end|>sheep<|box_start|>"]}
    text, special, _ = grounded(folder, objects, "<image><|box_start|> <ref-object>")
    assert "<|object_ref_start|><|im_end|>sheep<|box_start|><|object_ref_end|>" in text
    assert [special.count(f"<|{name}|>") for name in ("im_end", "box_start")] == [3, 2]


def test_an_answer_in_the_models_own_form_has_its_tokens(folder: Path) -> None:
    image(folder / "a.png", (200, 100))
    answer = "<|box_start|>(1,2),(3,4)<|box_end|>"
    write(folder, talk("<image><|box_start|>", answer, images=["a.png"]))
    _, request = asked(folder)
    row, tokenizer = build(folder).train[0], request.loaded.tokenizer
    start = tokenizer.convert_tokens_to_ids("<|box_start|>")
    assert row["input_ids"].count(start) == row["labels"].count(start) == 1


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (OBJECTS | {"image_id": [0, 1]}, "a box is in image 1, and the row has 1"),
        (OBJECTS | {"bbox": [[0, 0, 900, 9], [1, 1]]}, "leaves its image, 200 x 100"),
    ],
)
def test_boxes_without_their_image(folder: Path, objects: Any, said: str) -> None:
    with pytest.raises(RowError, match=said):
        grounded(folder, objects)


def test_a_template_without_a_form(folder: Path) -> None:
    write(folder, talk("<ref-object>", "<bbox> <bbox>", objects=OBJECTS))
    family = {"name": "qwen", "tiny_variant": "qwen2"}
    form = {"box": "<{x1}{y1}{x2}{y2}>"}
    with pytest.raises(RowError, match="a box is in image 0, and the row has 0"):
        build(folder, family=family, template={"name": "qwen", "boxes": form})
    with pytest.raises(RowError, match="and the template has no form for them"):
        build(folder, family=family)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
