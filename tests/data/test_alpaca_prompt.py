"""Stanford Alpaca's own prompt, from a record to the text that is trained."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.converting import convert_all
from data.running import build, chat_run, request, tokenizer
from tunewright import registry
from tunewright.types import Conversation

# As https://github.com/tatsu-lab/stanford_alpaca/blob/main/train.py has them. Its answer follows
# the colon; here, as with Axolotl and LLaMA-Factory, it stands in the next line.
WITHOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
WITH = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    "{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
SECTION = {"name": "alpaca", "input": "section"}


def text(folder: Path, record: dict[str, Any], format_: Any) -> tuple[str, str]:
    """The text of the row, and what of it is trained."""
    (folder / "a.jsonl").write_text(json.dumps(record) + "\n")
    run = chat_run(folder)
    kind = registry.load(registry.find("template", "alpaca"))
    run.plugins["template"] = kind(kind.Options(), "alpaca")
    entry = {"path": "a.jsonl", "format": format_}
    (row,) = build(run, request(folder, entry, max_length=2000)).train
    decode = tokenizer().decode
    return decode(row["input_ids"]), decode([each for each in row["labels"] if each != -100])


@pytest.mark.parametrize("record", [{}, {"input": ""}, {"input": None}])
def test_a_record_without_input(tmp_path: Path, record: dict[str, Any]) -> None:
    record |= {"instruction": "Name a river.", "output": "The Elbe."}
    for format_ in ("alpaca", SECTION):
        whole, trained = text(tmp_path, record, format_)
        assert whole == WITHOUT.format(**record) + "The Elbe.<|im_end|>\n\n"
        assert trained == "The Elbe.<|im_end|>"


def test_a_record_with_input(tmp_path: Path) -> None:
    record = {"instruction": "Name the colour.", "input": "A leaf.", "output": "Green."}
    whole, trained = text(tmp_path, record, SECTION)
    assert whole == WITH.format(**record) + "Green.<|im_end|>\n\n"
    assert trained == "Green.<|im_end|>"
    assert "Name the colour.\nA leaf.\n\n### Response" in text(tmp_path, record, "alpaca")[0]


def test_a_system_prompt_of_the_record_stays(tmp_path: Path) -> None:
    record = {"instruction": "a", "input": "b", "output": "c", "system": "Be brief.\n\n"}
    assert text(tmp_path, record, SECTION)[0].startswith("Be brief.\n\n### Instruction:\na\n\n###")


def test_history_has_no_section() -> None:
    record = {"instruction": "a", "input": "b", "output": "c", "history": [["x", "y"]]}
    (row,) = convert_all("alpaca", record, options={"input": "section"})
    assert isinstance(row, Conversation)
    assert [message.content for message in row.messages[1:]] == [
        "x",
        "y",
        "a\n\n### Input:\nb",
        "c",
    ]


def test_errors_name_the_column() -> None:
    for record, says in (
        ({"instruction": "", "input": "b", "output": "c"}, "instruction: is empty"),
        ({"instruction": "a", "input": 5, "output": "c"}, "input: found 5, expected text"),
    ):
        (error,) = convert_all("alpaca", record, options={"input": "section"})
        assert says in str(error)
