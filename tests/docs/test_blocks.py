"""A block of a page that does not do what it says is noticed: the tests of the pages can fail."""

from pathlib import Path

import pytest

from docs.pages import SCHEMA, blocks, parse, run

RECIPE = f"{SCHEMA}model: tiny\nfamily: qwen\ndata: [{{path: a.jsonl}}]\noutput: runs/a\n"

GOOD = {
    "a command": "```console\n$ echo yes  # said\nyes\n```",
    "a command of ours": "```console\n$ tunewright plugins list --kind stage\nsft\n...\n```",
    "sections": "```yaml\nadapter: {name: lora, rank: 4}\n```",
    "a recipe": f'```yaml title="r.yaml"\n{RECIPE}stage: sft\n```',
    "a chain": f'```yaml title="r.yaml"\n{RECIPE}stages: [pretrain, sft]\n```',
    "python": "```python\nassert 1 + 1 == 2\n```",
    "a file": '```toml title="x/a.toml"\na = 1\n```',
}
BROKEN = {
    "a command that fails": "```console\n$ false\n```",
    "a command that says something else": "```console\n$ echo no\nyes\n```",
    "a command of ours that fails": "```console\n$ tunewright train nowhere.yaml\n```",
    ("a command of ours that says something else"): (
        "```console\n$ tunewright plugins list --kind stage\nknitting\n```"
    ),
    "a command without its sign": "```console\ntunewright plugins list\n```",
    "a console without a command": "```console\n```",
    "a section with a word that there is not": "```yaml\nadapter: {name: lora, rnak: 4}\n```",
    ("a recipe with a word that there is not"): (
        f'```yaml title="r.yaml"\n{RECIPE}stage: sft\nlern: 1\n```'
    ),
    ("a chain with a stage that there is not"): (
        f'```yaml title="r.yaml"\n{RECIPE}stages: [sft, knit]\n```'
    ),
    "a recipe without its line for editors": '```yaml title="r.yaml"\nmodel: tiny\n```',
    "python that fails": "```python\nassert 1 + 1 == 3\n```",
    "a file of python that is none": '```python title="a.py"\ndef\n```',
    "a file of rows that are none": '```json title="a.jsonl"\n{"a": 1}\n{"a": \n```',
    "a file of toml that is none": '```toml title="a.toml"\na =\n```',
}


def do(page: str, folder: Path) -> None:
    (folder / "page.md").write_text(f"# Page\n\n{page}\n", "utf-8")
    (block,) = blocks(folder / "page.md")
    run(block)


@pytest.mark.parametrize("page", GOOD.values(), ids=GOOD.keys())
def test_a_good_block_passes(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    do(page, tmp_path)


@pytest.mark.parametrize("page", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_block_fails(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception):  # noqa: B017, PT011
        do(page, tmp_path)


@pytest.mark.parametrize(
    "command",
    ["trian a.yaml", "train a.yaml --smok", "train", "data previw a.yaml", "chat a --smok"],
)
def test_a_command_that_there_is_not_is_noticed(command: str) -> None:
    with pytest.raises(AssertionError):
        parse(command)


@pytest.mark.parametrize(
    "command", ["train a.yaml training.epochs=3 --resume", "chat a -m hi", "plugins new a --kind b"]
)
def test_a_command_that_there_is_passes(command: str) -> None:
    parse(command)
