"""`tunewright chat` with a picture: a folder with a model and its processor, as a user has it."""

from pathlib import Path

import pytest
import typer
from PIL import ImageOps
from typer.testing import CliRunner, Result

from media.media_cases import Subject, image, text, user
from media.test_generation import TOKENS, generated, prepared
from media.test_serving import PICTURE
from tunewright.terminal import printable
from tunewright_chat import command


@pytest.fixture(scope="module")
def case() -> Subject:
    return prepared("qwen", "qwen2_vl")


@pytest.fixture(scope="module")
def folder(case: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chat")
    case.loaded.model.save_pretrained(made / "model")
    case.loaded.processor.save_pretrained(made / "model")
    PICTURE.save(made / "noise.png")
    ImageOps.invert(PICTURE).save(made / "inverted.png")
    return made


def chat(case: Subject, folder: Path, *typed: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    options = case.loaded.template_options
    given = [str(folder / "model"), f"template={case.loaded.template}"]
    given += [f"template.{name}={options[name]}" for name in ("system", "image_text")]
    given += ["--max-new-tokens", str(TOKENS), "--temperature", "0"]
    return CliRunner().invoke(app, given, input="\n".join(typed) + "\n", catch_exceptions=False)


def test_the_reply_is_about_the_picture(case: Subject, folder: Path) -> None:
    inputs = case.whole([user(image("wide"), text("How wide?"))], prompt=True)
    own = case.loaded.processor.image_processor(images=[PICTURE], return_tensors="pt")
    tokens, _ = generated(case, {**inputs, **own})
    expected = printable(case.loaded.tokenizer.decode(tokens)).strip()
    picture, other = folder / "noise.png", folder / "inverted.png"
    found = chat(case, folder, f"/image {picture}", "How wide?", "/raw")
    assert found.stdout.strip() == expected
    assert "1 file goes with the next message" in found.stderr
    assert "<|vision_start|><|image_pad|>" in found.stderr
    within = chat(
        case, folder, f"/image {other}", "How wide?", "/new", f"/image {picture}", "How wide?"
    )
    first, second = within.stdout.splitlines()
    assert first.strip() != expected and second.strip() == expected
