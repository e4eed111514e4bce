"""What real data and real recipes got wrong once, each through the command line on a minimal input:
one line that says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from e2e.field_setup import (
    ASKED,
    CALLED,
    RESULT,
    SAID,
    TOOL,
    WORDS,
    Command,
    _here,
    preview,
    recipe,
    write,
)
from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.resume import check_same

__all__ = ["_here", "preview", "recipe"]


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
