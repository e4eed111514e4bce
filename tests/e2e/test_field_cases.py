"""What real data and real recipes broke once, each through the command line on a minimal input: the
right outcome, or a line that says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import ipc, parquet

from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.resume import check_same

Command = Callable[..., tuple[int, str, str]]

TINY = {"name": "qwen", "tiny_hidden_size": 16, "tiny_layers": 1}
ASKED = {"role": "user", "content": "High water in Bergen?"}
SAID = {"role": "assistant", "content": "At ten past four."}
RESULT = {"role": "tool", "content": "04:10"}
CALL = {"name": "get_tide", "arguments": {"port": "Bergen"}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}
SCHEMA = {"type": "object", "properties": {"port": {"type": "string"}}}
TOOL = {"name": "get_tide", "description": "High water", "parameters": SCHEMA}
WORDS = {"instruction": "Name a bird.", "output": "A wren."}


def write(name: str, *rows: Any) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def preview(recipe: Callable[..., str], tunewright: Command) -> Command:
    """preview(row, …, sections): what `data preview` says of these rows."""

    def shown(*rows: Any, **sections: Any) -> tuple[int, str, str]:
        write("a.jsonl", *rows)
        return tunewright("data", "preview", recipe(**sections), "-n", "3")

    return shown


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe() -> Callable[..., str]:
    """recipe(sections): the file of a recipe that trains two steps on a.jsonl."""

    def written(**sections: Any) -> str:
        shared = {
            "model": "tiny",
            "family": TINY,
            "data": [{"path": "a.jsonl"}],
            "stage": "sft",
            "training": {"max_steps": 2, "per_device_train_batch_size": 2},
            "loggers": ["console"],
            "output": "out",
        }
        kept = {key: value for key, value in (shared | sections).items() if value is not None}
        Path("r.yaml").write_text(yaml.safe_dump(kept))
        return "r.yaml"

    return written


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


# ---- what is refused, in one line ----------------------------------------------------------------


def one_line(found: tuple[int, str, str]) -> str:
    code, _, error = found
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert code in (1, 2) and "Traceback" not in error and "this is a defect" not in error
    return line.removeprefix("error: ")


def test_a_template_that_drops_calls(
    recipe: Callable[..., str], tunewright: Command, preview: Command
) -> None:
    write("a.jsonl", WORDS)
    assert tunewright("train", recipe())[0] == 0
    Path("out/model/chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = {"messages": [ASKED, CALLED, RESULT, SAID], "tools": [{"function": TOOL}]}
    own = {"model": "out/model", "family": None, "template": "auto"}
    said = one_line(preview(row, **own))
    assert said.startswith("a.jsonl:1: the tokenizer's chat template does not write")
    assert "name the template of the model's family" in said


def test_text_that_is_not_utf_8(preview: Command) -> None:
    Path("a.csv").write_bytes(b"instruction,output\na,b\nSay h\xe9,c\n")
    said = one_line(preview(data=[{"path": "a.csv"}]))
    assert said.startswith("a.csv:3: byte 0xe9 after 'Say h' is not UTF-8 (save the file as UTF-8")


def test_one_key_twice(preview: Command) -> None:
    Path("b.jsonl").write_text('{"instruction": "q", "output": "lost", "output": "kept"}\n')
    said = one_line(preview(data=[{"path": "b.jsonl"}]))
    assert said.startswith("b.jsonl:1: an object has the key output twice (leave one of them out")


def test_no_prompt_names_what_the_record_has(preview: Command) -> None:
    row = {"system": "", "question": "q", "chosen": "a", "rejected": "b"}
    said = one_line(preview(row, stage="dpo"))
    assert said.startswith("a.jsonl:1: record: found an object with system, question, chosen, re")
    assert "`columns: {prompt: question}`" in said


def test_eval_loss_is_understood_and_others_are_found(
    recipe: Callable[..., str], tunewright: Command
) -> None:
    write("a.jsonl", WORDS)
    best = {"max_steps": 2, "eval_steps": 1, "load_best_model_at_end": True}
    sets = {"eval_data": {"held out": [{"path": "a.jsonl"}]}}
    for metric, code in (("eval_loss", 0), ("eval_accuracy", 2)):
        asked = recipe(training=best | {"metric_for_best_model": metric}, **sets)
        assert tunewright("recipe", "check", asked)[0] == code
        assert tunewright("train", asked, "--overwrite")[0] == code


def test_a_reward_without_its_column(recipe: Callable[..., str], tunewright: Command) -> None:
    write("a.jsonl", {"prompt": "2 + 2?", "solution": "4"})
    asked = recipe(stage={"name": "grpo", "rewards": ["exact_match"]})
    for verb in (("recipe", "check"), ("train",)):
        said = one_line(tunewright(*verb, asked))
        assert "stage.rewards.0: reward exact_match needs the column 'answer'" in said
        assert "`columns: {answer: solution}`" in said


def test_a_new_recipe_for_pairs(tunewright: Command) -> None:
    write("a.jsonl", {"prompt": "q", "chosen": "a", "rejected": "b"})
    given = ("--model", "tiny", "--family", "qwen", "--data", "a.jsonl", "--output", "out")
    assert tunewright("recipe", "new", "new.yaml", "--yes", *given)[0] == 0
    assert yaml.safe_load(Path("new.yaml").read_text())["stage"] == "dpo"


def test_more_epochs_of_a_finished_run(recipe: Callable[..., str], tunewright: Command) -> None:
    write("a.jsonl", WORDS)
    asked = recipe(training={"epochs": 1})
    assert tunewright("train", asked)[0] == 0
    said = one_line(tunewright("train", asked, "--resume", "training.epochs=3"))
    assert said.startswith("out: training.epochs was 1.0 when the run began, is 3.0 now")
    assert "another recipe, whose `model` is its result, trains on" in said


def test_a_tokenizer_with_more_tokens_than_embeddings(
    recipe: Callable[..., str], tunewright: Command
) -> None:
    from transformers import AutoTokenizer

    write("a.jsonl", WORDS)
    assert tunewright("train", recipe())[0] == 0
    tokenizer = AutoTokenizer.from_pretrained("out/model")
    tokenizer.add_tokens([f"<x{n}>" for n in range(100)])
    tokenizer.save_pretrained("out/model")
    own = {"model": "out/model", "family": None, "template": "chatml", "output": "out2"}
    said = one_line(tunewright("train", recipe(**own)))
    assert "the tokenizer has ids up to" in said and "embeddings have" in said
    assert "resize_token_embeddings" in said


@pytest.mark.parametrize(
    "change",
    [
        "dataset.workers=2",
        "dataset.cache=elsewhere",
        "family.device=cpu",
        "data.0.path=./a.jsonl",
        "loggers=[jsonl]",
        *(f"training.{name}=7" for name in ("logging_steps", "save_steps", "save_total_limit")),
        *(f"training.{name}=3" for name in ("eval_steps", "per_device_eval_batch_size")),
    ],
)
def test_a_harmless_change_does_not_refuse_a_resume(
    recipe: Callable[..., str], change: str
) -> None:
    asked = recipe(eval_data={"held": [{"path": "a.jsonl"}]})
    before = resolve(asked).recipe.as_dict()
    after = resolve(asked, [change])
    assert after.recipe.as_dict() != before
    check_same(before, after, Path("out"))
    with pytest.raises(RecipeError, match="max_length was 2048 when the run began, is 99 now"):
        check_same(before, resolve(asked, [change, "training.max_length=99"]), Path("out"))
