"""Rows that cannot be used are errors of one line with their place, whatever is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.converting import problem
from data.running import build, chat_run, request
from tunewright import RowError
from tunewright_dataset_chat import files
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def reading(folder: Path, text: str, name: str = "a.jsonl") -> list[str]:
    """Records as JSON, and errors as they are said."""
    (folder / name).write_text(text)
    found = files.read(files.find(name, folder, files.Wanted("")).files, MAX_RECORD_BYTES)
    return [str(one) if isinstance(one, RowError) else json.dumps(one[1]) for one in found]


# ---- keys that stand there twice -----------------------------------------------------------------


def test_a_key_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = '{"a": 1}\n{"a": 1, "b": 2, "a": 3}\n{"c": [{"d": {"x": 1, "x": 1}}]}\n{"a": 2}\n'
    end = "twice (leave one of them out)"
    place = tmp_path / "a.jsonl"
    assert reading(tmp_path, text) == [
        '{"a": 1}',
        f"{place}:2: an object has the key a {end}",
        f"{place}:3: an object has the key x {end}",
        '{"a": 2}',
    ]


def test_a_key_twice_in_a_list_is_one_error_and_the_list_goes_on(tmp_path: Path) -> None:
    text = json.dumps([{"a": 1}]).replace("]", ', {"b": 1, "b": 1}, {"c": 1}]')
    found = reading(tmp_path, text, "a.json")
    place = tmp_path / "a.json"
    assert found == [
        '{"a": 1}',
        f"{place}:2: an object has the key b twice (leave one of them out)",
        '{"c": 1}',
    ]


def test_a_broken_line_says_nothing_of_the_next(tmp_path: Path) -> None:
    found = reading(tmp_path, '{"x": {"a": 1, "a": 2}, "b" 3}\n{"a": 1}\n')
    assert "is not valid JSON" in found[0]
    assert found[1] == '{"a": 1}'


def test_a_key_twice_in_a_text_of_json() -> None:
    call = {"name": "f", "arguments": '{"a": 1, "a": 2}'}
    said = problem("openai", {"messages": [USER, ANSWER | {"tool_calls": [call]}]})
    assert "expected JSON: an object has the key a twice" in said


def test_equal_keys_of_different_objects_are_fine(tmp_path: Path) -> None:
    text = '{"a": {"a": [{"a": 1}, {"a": 2}]}}'
    assert reading(tmp_path, text) == [text]


# ---- numbers, names, depth -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_number_of_too_many_digits(tmp_path: Path, name: str) -> None:
    number = '{"a": ' + "7" * 5000 + "}"
    text = f'{{"a": 1}}\n{number}\n' if name == "a.jsonl" else f'[\n{{"a": 1}},\n{number}\n]'
    (tmp_path / name).write_text(text)
    found = []
    with_error = files.read(files.find(name, tmp_path, files.Wanted("")).files, MAX_RECORD_BYTES)
    try:
        found = [str(one) for one in with_error if isinstance(one, RowError)]
    except RowError as error:
        found = [str(error)]
    (said,) = found
    assert said.startswith(f"{tmp_path / name}:{2 if name == 'a.jsonl' else 3}: is not valid JSON")
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 10**400},
            "margin: found a number of many digits, expected a number of at most 1,000,000,000",
        ),
        (
            "preference",
            {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1e300},
            "margin: found 1e+300, expected a number of at most",
        ),
        (
            "ranking",
            {"prompt": "p", "answers": ["a", "b"], "scores": [1, 10**400]},
            "scores[1]: found a number of many digits",
        ),
        (
            "ranking",
            {"prompt": "p", "answers": ["a", "b"], "ranks": [float("nan"), 1]},
            "ranks[0]: found NaN",
        ),
        (
            "openai",
            {"messages": [{"role": "user", "content": [{"type": ["text"]}]}, ANSWER]},
            "messages[0].content[0].type: found a list",
        ),
        (
            "openai",
            {"messages": [USER, ANSWER | {"tool_calls": 5}]},
            "messages[1].tool_calls: found 5, expected a list",
        ),
        ("openai", {"messages": [USER, ANSWER], "tools": [5]}, "tools[0]: found 5"),
        (
            "sharegpt",
            {"conversations": [{"from": ["human"], "value": "q"}]},
            "conversations[0].from: found a list",
        ),
    ],
)
def test_values_of_odd_types_and_sizes(name: str, record: Any, expected: str) -> None:
    assert problem(name, record).startswith(expected)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("alpaca", {}),
        ("sharegpt", {"conversations": [{}]}),
        ("openai", {"messages": [USER, ANSWER | {"content": {}}]}),
        ("prompts", {}),
        ("preference", {"chosen": "a", "rejected": "b"}),
    ],
)
def test_objects_of_many_keys_are_named_in_short(name: str, record: dict[str, Any]) -> None:
    many = {f"key{number}" + "x" * 100: {} for number in range(20_000)}
    wide: dict[str, Any] = json.loads(json.dumps(record).replace("{}", json.dumps(many)))
    said = problem(name, wide if wide != record else record | many)
    assert len(said) < 900


def test_no_prompt_names_what_the_record_has() -> None:
    record = {"system": "s", "question": "q", "chosen": "a", "rejected": "b"}
    for name, more in (
        ("preference", record),
        ("ranking", {"question": "q", "answers": ["a", "b"], "ranks": [1, 2]}),
        ("unpaired", {"question": "q", "completion": "a", "label": True}),
        ("prompts", {"question": "q", "answer": 3}),
    ):
        said = problem(name, more)
        assert said.startswith(f"record: found an object with {', '.join(more)}, expected a prompt")


# ---- in a run ------------------------------------------------------------------------------------


def run(folder: Path, **options: Any) -> Any:
    return chat_run(folder, cache=str(folder / "cache"), on_bad_row="skip", **options)


def kept(folder: Path, *records: Any, rows: str = "messages", **options: Any) -> Any:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "a.jsonl").write_text(text)
    return build(run(folder, **options), request(folder, "a.jsonl", rows=rows))


HALF = "the \ud83d cat"
GOOD = {
    "messages": {"instruction": "a", "output": "b"},
    "text": {"text": "the cat"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "unpaired": {"prompt": "a", "completion": "b", "label": True},
    "prompts": {"prompt": "a", "answer": "b"},
}


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        ("messages", {"instruction": "a", "output": HALF}),
        ("messages", {"instruction": HALF, "output": "a"}),
        ("text", {"text": HALF}),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": HALF}),
        ("unpaired", {"prompt": HALF, "completion": "b", "label": True}),
        ("prompts", {"prompt": HALF, "answer": "b"}),
        ("prompts", {"prompt": "a", "answer": HALF}),
    ],
)
def test_half_a_surrogate_pair_is_a_row_error(tmp_path: Path, rows: str, bad: Any) -> None:
    data = kept(tmp_path, GOOD[rows], bad, GOOD[rows], rows=rows)
    assert (len(data.train), data.dropped) == (2, {"cannot be used": 1})
    (said,) = [note for note in data.notes if note.startswith("left out")]
    assert "a.jsonl:2: " in said
    assert "has half of a surrogate pair" in said
    assert said.isprintable()


def test_whole_pairs_are_text(tmp_path: Path) -> None:
    record = json.dumps({"instruction": "a", "output": "\U0001f600 b"})
    assert "\\ud83d\\ude00" in record
    (tmp_path / "a.jsonl").write_text(record)
    assert len(build(run(tmp_path), request(tmp_path, "a.jsonl")).train) == 1


@pytest.mark.parametrize("rows", sorted(GOOD))
def test_a_batch_without_a_row_that_can_be_used(tmp_path: Path, rows: str) -> None:
    records = [dict.fromkeys(GOOD[rows], "")] * 1001 + [GOOD[rows]]
    data = kept(tmp_path, *records, rows=rows)
    assert (len(data.train), data.dropped) == (1, {"cannot be used": 1001})


def test_what_is_nested_too_deeply_is_a_row_error(tmp_path: Path) -> None:
    deep = json.loads('{"a":' * 700 + "1" + "}" * 700)
    call = {"function": {"name": "f", "arguments": deep}}
    record = {"messages": [USER, ANSWER | {"tool_calls": [call]}]}
    template = """\
{%- for message in messages %}{% if message.role == "assistant" %}{% generation -%}
{{ message.tool_calls | tojson if message.tool_calls else message.content }}<|im_end|>
{%- endgeneration %}{% endif %}{% endfor %}"""
    data = kept(tmp_path, record, {"messages": [USER, ANSWER]}, template=template)
    assert (len(data.train), data.dropped) == (1, {"cannot be used": 1})


# ---- columns that stand there twice --------------------------------------------------------------


def test_a_column_twice_is_an_error_of_the_file(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather, parquet

    (tmp_path / "a.csv").write_text("output,instruction,output\nlost,q,kept\n")
    (tmp_path / "a.tsv").write_text("output\tinstruction\toutput\nlost\tq\tkept\n")
    table = pa.table([["lost"], ["q"], ["kept"]], names=["output", "instruction", "output"])
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed")
    for name in ("a.csv", "a.tsv", "a.parquet", "a.feather"):
        found = files.read(files.find(name, tmp_path, files.Wanted("")).files, MAX_RECORD_BYTES)
        with pytest.raises(RowError, match=rf"{name}(:1)?: has the column output twice \(rename"):
            list(found)


def test_columns_without_a_name_are_told_apart(tmp_path: Path) -> None:
    """As a table with an index, or with empty columns at the end, is written."""
    assert reading(tmp_path, ",a,,\n0,x,,y\n", "a.csv") == [
        '{"column 1": "0", "a": "x", "column 3": "", "column 4": "y"}'
    ]
