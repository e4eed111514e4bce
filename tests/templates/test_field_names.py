"""The templates that LLaMA-Factory's vectors cover, as the documentation counts on them without the
vectors."""

import json
from pathlib import Path

import pytest

from shared import SHARED
from workspace.members import script

GOLDENS = SHARED / "goldens/templates"


@pytest.mark.skipif(not GOLDENS.is_dir(), reason="the golden vectors are on our own machines only")
def test_the_list_is_that_of_the_vectors() -> None:
    listed = Path(__file__).with_name("field.txt").read_text("utf-8").split()
    assert listed == sorted(file.stem for file in GOLDENS.glob("*.json"))
    cases = {len(json.loads(file.read_text("utf-8"))["cases"]) for file in GOLDENS.glob("*.json")}
    assert cases == {script("models_page").FIELD_CASES}
