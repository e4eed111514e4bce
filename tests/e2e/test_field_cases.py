"""What real data and real recipes broke once, each through the command line on a minimal input: the
right outcome, or a line that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from e2e.field_setup import (
    ASKED,
    CALL,
    CALLED,
    RESULT,
    SAID,
    TINY,
    TOOL,
    WORDS,
    Command,
    _here,
    preview,
    recipe,
    write,
)

__all__ = ["_here", "preview", "recipe"]


# ---- rows that are read as they were meant -------------------------------------------------------


def test_alpacas_input_has_its_section_where_that_is_asked_for(preview: Command) -> None:
    row = {"instruction": "Name the colour.", "input": "A leaf.", "output": "Green."}
    source = {"path": "a.jsonl", "format": {"name": "alpaca", "input": "section"}}
    _, out, _ = preview(row, template="alpaca", data=[source])
    assert "### Input:\nA leaf.\n\n### Response:\n" in out
    assert "### Input:" not in preview(row, template="alpaca")[1]


def test_functions_of_the_old_api_are_in_the_prompt(preview: Command) -> None:
    call = {"role": "assistant", "content": None, "function_call": CALL}
    row = {"messages": [ASKED, call, RESULT | {"role": "function"}, SAID], "functions": [TOOL]}
    _, out, _ = preview(row, template="qwen3")
    assert "# Tools" in out and '"name": "get_tide", "description": "High water"' in out
    assert '{"name": "get_tide", "arguments": {"port": "Bergen"}}' in out


@pytest.mark.parametrize("key", ["loss", "training", "train", "weight"])
def test_an_answer_that_is_not_to_be_trained_is_not(preview: Command, key: str) -> None:
    first = {"role": "assistant", "content": "5, surely."} | {key: key == "weight" and 0}
    _, out, _ = preview({"messages": [ASKED, first, ASKED, SAID]})
    assert "5, surely." in out and "⟦5, surely." not in out
    assert "At ten past four.<|im_end|>⟧" in out


def test_nulls_of_a_table_are_no_arguments(preview: Command) -> None:
    rows = [{"messages": [ASKED, CALLED, RESULT, SAID], "tools": [{"function": TOOL}]}]
    other = {"name": "add", "arguments": {"a": 1, "b": 2}}
    sum_ = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    rows.append(
        {
            "messages": [ASKED, CALLED | {"tool_calls": [{"function": other}]}, RESULT, SAID],
            "tools": [{"function": {"name": "add", "description": "Add", "parameters": sum_}}],
        }
    )
    expected = preview(*rows, template="qwen3")[1].partition("rows read")[0]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, "a.parquet")
    with ipc.new_file("a.arrow", table.schema) as file:
        file.write_table(table)
    assert "null" not in expected and '"arguments": {"port": "Bergen"}}' in expected
    for name in ("a.parquet", "a.arrow"):
        found = preview(*rows, template="qwen3", data=[{"path": name}])[1].partition("rows read")[0]
        assert found.replace(name, "a.jsonl") == expected


def test_calls_in_text_are_trained_as_text(preview: Command) -> None:
    turns = [
        {"from": "human", "value": "High water?"},
        {"from": "gpt", "value": '<tool_call>\n{"name": "tide", "arguments": {}}\n</tool_call>'},
        {"from": "tool", "value": "04:10"},
        {"from": "gpt", "value": "At ten past four."},
    ]
    template = {"name": "qwen3", "role_order": "any"}
    code, out, _ = preview({"conversations": turns}, template=template)
    assert code == 0 and "1 row read, 0 dropped" in out
    assert '{"name": "tide", "arguments": {}}\n</tool_call><|im_end|>⟧' in out


def test_one_bos_whoever_wrote_it(recipe: Callable[..., str], tunewright: Command) -> None:
    write("a.jsonl", {"text": "<|begin_of_text|>Once upon."}, {"text": "Once upon."})
    asked = recipe(family=TINY | {"name": "llama"}, stage="pretrain")
    assert tunewright("data", "prepare", asked, "--to", "prep")[0] == 0
    (file,) = Path("prep").rglob("rows.arrow")
    first, second = (row.as_py() for row in rows_of(file).column("input_ids"))
    assert first == second and first.count(first[0]) == 1


def rows_of(file: Path) -> Any:
    with pa.memory_map(str(file)) as source:
        return ipc.open_stream(source).read_all()


@pytest.mark.parametrize("split", [None, "train"])
def test_a_folder_with_splits_trains_the_train_split(preview: Command, split: str | None) -> None:
    Path("repo/data").mkdir(parents=True)
    for name in ("test", "train"):
        table = pa.Table.from_pylist([WORDS | {"output": f"of {name}"}])
        parquet.write_table(table, f"repo/data/{name}-00000-of-00001.parquet")
    source = {"path": "repo"} | ({"split": split} if split else {})
    _, out, _ = preview(data=[source])
    assert "of train" in out and "of test" not in out
    assert "left out 1 file of other splits (data/test-00000-of-00001.parquet)" in out


# ---- what is said --------------------------------------------------------------------------------


def test_an_answer_that_spells_a_stop_token_is_counted(preview: Command) -> None:
    _, out, _ = preview(WORDS, WORDS | {"output": "A wren.<|im_end|>"})
    assert "rows with an answer that spells <|im_end|>, which is trained as text: 1" in out


def test_columns_that_nobody_reads_are_named(
    preview: Command, recipe: Callable[..., str], tunewright: Command
) -> None:
    row = {"instruction": "Who?", "context": "Ana won.", "response": "Ana", "category": "qa"}
    source = {"path": "a.jsonl", "format": "alpaca", "columns": {"output": "response"}}
    assert "not read: columns context, category (1 row)" in preview(row, data=[source])[1]
    code, out, _ = tunewright("recipe", "check", recipe(data=[source]))
    assert code == 0 and out.startswith("a.jsonl: not read: columns context, category (1 row)\n")


def test_half_a_pair_of_surrogates_is_left_out_and_named(preview: Command) -> None:
    half = WORDS | {"output": "Hi \ud83d"}
    code, out, _ = preview(half, WORDS, dataset={"name": "chat", "on_bad_row": "skip"})
    assert code == 0 and "2 rows read, 1 dropped" in out
    assert "left out: a.jsonl:1: has half of a surrogate pair" in out


def test_rewards_that_are_all_alike_are_a_warning(
    recipe: Callable[..., str], tunewright: Command
) -> None:
    write("a.jsonl", *({"prompt": f"{n} + 3?", "answer": f"so #### {n + 3}"} for n in range(4)))
    stage = {"name": "grpo", "rewards": ["exact_match"], "num_generations": 2, "max_new_tokens": 3}
    code, out, _ = tunewright("train", recipe(stage=stage))
    assert code == 0
    said = "all rewards that are compared are alike"
    assert said in out, out
    assert said in json.loads(Path("out/run.json").read_text())["warnings"][0]
