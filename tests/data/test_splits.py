"""Folders with splits, as hubs lay them out: by names, by the dataset card, and what is said of the
rest."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data.running import build, chat_run, request, write
from tunewright import RecipeError
from tunewright_dataset_chat import dataset_card, files
from tunewright_dataset_chat.splits import split_of


def folder(root: Path, *names: str) -> Path:
    """A folder with these files, each of one record that holds its name."""
    for name in names:
        (root / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "repo" / name).write_text(json.dumps(name) + "\n")
    return root


def chosen(root: Path, path: str = "repo", **said: Any) -> list[str]:
    found = files.find(path, root, files.Wanted("data.0.path", **said)).files
    return [Path(file.path).relative_to(root / "repo").as_posix() for file in found]


def notes(root: Path, path: str = "repo", **said: Any) -> list[str]:
    return files.find(path, root, files.Wanted("data.0.path", **said)).notes


SHARDS = ("data/test-00000-of-00001.jsonl", "data/train-00000-of-00002.jsonl")
MORE = ("data/train-00001-of-00002.jsonl", "data/validation-00000-of-00001.jsonl")


def test_train_is_read_and_the_rest_is_reported(tmp_path: Path) -> None:
    folder(tmp_path, *SHARDS, *MORE, "data/notes.pdf")
    assert chosen(tmp_path) == [SHARDS[1], MORE[0]]
    assert chosen(tmp_path, split="train") == chosen(tmp_path)
    assert chosen(tmp_path, split="test") == [SHARDS[0]]
    assert chosen(tmp_path, split="validation") == [MORE[1]]
    assert chosen(tmp_path, split="dev") == [MORE[1]]
    assert notes(tmp_path) == [
        f"split train: left out 2 files of other splits ({SHARDS[0]}, {MORE[1]})",
        "left aside 1 other files (data/notes.pdf)",
    ]


def test_the_note_reaches_the_user_and_only_train_is_trained(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    write(tmp_path / "repo" / "train.jsonl", "the cat", "the mat")
    write(tmp_path / "repo" / "test.jsonl", "secret answer")
    data = build(chat_run(tmp_path), request(tmp_path, "repo"))
    assert len(data.train) == 2
    assert any("left out 1 file of other splits (test.jsonl)" in note for note in data.notes)
    data = build(chat_run(tmp_path), request(tmp_path, {"path": "repo", "split": "test"}))
    assert len(data.train) == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("test/a.jsonl", "test"),
        ("en/dev/a.jsonl", "validation"),
        ("my-eval_2.csv", "test"),
        ("train/test_questions.jsonl", "test"),
        ("c4-validation.00000-of-00008.json.gz", "validation"),
        ("Test.PARQUET", "test"),
        ("latest.jsonl", "train"),
        ("contest.jsonl", "train"),
        ("trainer/valley.jsonl", "train"),
        ("a/b.jsonl", "train"),
    ],
)
def test_splits_are_whole_words_of_names(name: str, split: str) -> None:
    assert split_of(name) == split


def test_files_without_a_split_are_for_training(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "b.jsonl", "test.jsonl")
    assert chosen(tmp_path) == ["a.jsonl", "b.jsonl"]


def test_one_split_alone_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "test/1.jsonl", "test/2.jsonl")
    assert chosen(tmp_path) == ["test/1.jsonl", "test/2.jsonl"]
    with pytest.raises(RecipeError, match="has no split 'train', only test"):
        chosen(tmp_path, split="train")


def test_a_split_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, "test.jsonl", "dev.jsonl")
    with pytest.raises(RecipeError, match=r"has no split 'train', only test, validation \(name"):
        chosen(tmp_path)
    names = [f"data/{name}-00000-of-00001.jsonl" for name in ("train_sft", "train_gen", "test_sft")]
    folder(tmp_path / "x", *names)
    with pytest.raises(RecipeError, match="has several splits for train: train_gen, train_sft"):
        chosen(tmp_path / "x")
    assert chosen(tmp_path / "x", split="train_gen") == [names[1]]


def test_a_pattern_says_that_it_takes_several_splits(tmp_path: Path) -> None:
    folder(tmp_path, "train.jsonl", "test.jsonl")
    assert chosen(tmp_path, "repo/*.jsonl") == ["test.jsonl", "train.jsonl"]
    assert notes(tmp_path, "repo/*.jsonl") == [
        "the pattern takes files of several splits: test, train"
    ]
    assert chosen(tmp_path, "repo/*.jsonl", split="train") == ["train.jsonl"]
    with pytest.raises(RecipeError, match="has no split 'test': one file has no splits"):
        chosen(tmp_path, "repo/train.jsonl", split="test")


# ---- dataset cards -------------------------------------------------------------------------------

CARD = """---
license: mit
configs:
- config_name: main
  default: true
  data_files:
  - split: train
    path: [main/a-*.jsonl, "extra/**/*.jsonl"]
  - split: test
    path: main/test.jsonl
- config_name: socratic
  data_dir: socratic
- config_name: plain
  data_files: "plain/*.jsonl"
---
# A data set
"""
FILES = (
    "main/a-1.jsonl",
    "main/a-2.jsonl",
    "main/b.jsonl",
    "main/test.jsonl",
    "extra/deep/x.jsonl",
    "socratic/train.jsonl",
    "socratic/test.jsonl",
    "plain/1.jsonl",
    "plain/sub/2.jsonl",
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder(tmp_path, *FILES)
    (tmp_path / "repo" / "README.md").write_text(CARD)
    return tmp_path


def test_configs_of_a_card_are_honoured(repo: Path) -> None:
    assert chosen(repo) == ["extra/deep/x.jsonl", "main/a-1.jsonl", "main/a-2.jsonl"]
    assert chosen(repo, split="test") == ["main/test.jsonl"]
    assert chosen(repo, subset="socratic") == ["socratic/train.jsonl"]
    assert chosen(repo, subset="socratic", split="test") == ["socratic/test.jsonl"]
    assert chosen(repo, subset="plain") == ["plain/1.jsonl"]
    assert notes(repo)[0].startswith("main of the dataset card: left out 6 files (main/b.jsonl,")


def test_what_a_card_does_not_have_is_named(repo: Path) -> None:
    with pytest.raises(RecipeError, match=r"has no subset 'sokratic' .did you mean 'socratic'"):
        chosen(repo, subset="sokratic")
    with pytest.raises(RecipeError, match="has no split 'dev' for 'main', only train, test"):
        chosen(repo, split="dev")
    (repo / "repo" / "README.md").write_text(CARD.replace("  default: true\n", ""))
    with pytest.raises(RecipeError, match="tells of the subsets main, socratic, plain"):
        chosen(repo)
    (repo / "repo" / "README.md").write_text(CARD.replace("main/test.jsonl", "main/gone.jsonl"))
    with pytest.raises(RecipeError, match="names no file that is there for the split 'test'"):
        chosen(repo, split="test")


@pytest.mark.parametrize(
    "front",
    [
        "configs: [",
        "configs: 5",
        "configs: [a]",
        "configs: [{data_files: [{path: a}]}]",
        "configs: [{data_files: ../../*.jsonl}]",
        "configs: [{data_files: /etc/*.jsonl}]",
        "configs: [{data_files: 'hf://datasets/a/b/*.jsonl'}]",
        "configs: [{data_dir: ../x}]",
        "configs: [{config_name: [a]}]",
        "configs: [{data_files: [{split: train, path: [5]}]}]",
        "a: &a [x]\nconfigs: *a",
        "configs: !!python/object/apply:os.system [echo]",
    ],
)
def test_a_broken_card_is_reported_and_not_used(tmp_path: Path, front: str) -> None:
    folder(tmp_path, "train.jsonl", "test.jsonl")
    (tmp_path / "repo" / "README.md").write_text(f"---\n{front}\n---\n")
    assert chosen(tmp_path) == ["train.jsonl"]
    assert any("README.md" in note and "not used" in note for note in notes(tmp_path))


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("a/b/c.jsonl", "**/*.jsonl", True),
        ("c.jsonl", "**/*.jsonl", True),
        ("a/b.jsonl", "*.jsonl", False),
        ("a/b.jsonl", "a", True),
        ("ab/b.jsonl", "a", False),
        ("a/x/y/b.jsonl", "a/**/b.jsonl", True),
        ("train-1.jsonl", "train-[0-9].jsonl", True),
        ("train-x.jsonl", "train-[!x].jsonl", False),
    ],
)
def test_patterns_of_a_card(name: str, pattern: str, matches: bool) -> None:
    assert dataset_card.matches(name, pattern) is matches


def test_a_hostile_pattern_ends(tmp_path: Path) -> None:
    name = "/".join(["a" * 20] * 20)
    assert not dataset_card.matches(name, "/".join(["**", "*a*a*a*a*a*a*"] * 15) + "/b")


def test_a_subset_needs_somebody_who_gives_it(tmp_path: Path) -> None:
    folder(tmp_path, "train.jsonl")
    for path in ("repo", "repo/*.jsonl", "repo/train.jsonl"):
        with pytest.raises(RecipeError, match="no subset 'en'"):
            chosen(tmp_path, path, subset="en")


# ---- links ---------------------------------------------------------------------------------------

needs_links = pytest.mark.skipif(os.name == "nt", reason="makes links")


@needs_links
@pytest.mark.parametrize("target", ["../outside.txt", "/proc/self/environ", "/etc/passwd"])
@pytest.mark.parametrize("path", ["repo", "repo/*.txt", "repo/**/*.txt"])
def test_a_link_out_of_a_folder_is_refused(tmp_path: Path, target: str, path: str) -> None:
    folder(tmp_path, "sub/a.txt")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "repo" / "e.txt").symlink_to(target)
    with pytest.raises(RecipeError, match=r"e\.txt is a link that leads out of .*repo") as caught:
        chosen(tmp_path, path)
    assert "secret" not in str(caught.value)


@needs_links
def test_a_folder_that_is_a_link_in_a_pattern_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "b.jsonl").write_text("{}")
    (tmp_path / "repo" / "more").symlink_to(tmp_path / "private")
    with pytest.raises(RecipeError, match="is a link that leads out of"):
        chosen(tmp_path, "repo/*/*.jsonl")
    assert chosen(tmp_path) == ["a.jsonl"]  # links to folders are not followed


@needs_links
def test_links_that_a_recipe_names_and_links_within_are_read(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    (tmp_path / "repo" / "b.jsonl").symlink_to("a.jsonl")
    (tmp_path / "link").symlink_to("repo")
    (tmp_path / "one.jsonl").symlink_to("repo/a.jsonl")
    assert chosen(tmp_path) == ["a.jsonl", "b.jsonl"]
    for path in ("link", "link/*.jsonl", "one.jsonl"):
        assert files.find(path, tmp_path, files.Wanted("")).files


@needs_links
def test_the_links_of_a_hugging_face_cache_are_read(tmp_path: Path) -> None:
    cache = tmp_path / "datasets--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / "0a1b").write_text("{}\n")
    snapshot = cache / "snapshots" / "rev" / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "train.jsonl").symlink_to("../../../blobs/0a1b")
    found = files.find("datasets--a--b/snapshots/rev", tmp_path, files.Wanted("")).files
    assert [Path(file.path).name for file in found] == ["train.jsonl"]
    (tmp_path / "outside").write_text("secret")
    (snapshot / "more.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(RecipeError, match="leads out"):
        files.find("datasets--a--b/snapshots/rev", tmp_path, files.Wanted(""))
    (snapshot / "more.jsonl").unlink()
    (cache / "blobs" / "0a1b").unlink()
    (cache / "blobs" / "0a1b").symlink_to(tmp_path / "outside")  # a blob that is a link itself
    with pytest.raises(RecipeError, match="leads out"):
        files.find("datasets--a--b/snapshots/rev", tmp_path, files.Wanted(""))


@needs_links
def test_a_card_that_is_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    (tmp_path / "outside").write_text(CARD)
    (tmp_path / "repo" / "README.md").symlink_to(tmp_path / "outside")
    with pytest.raises(RecipeError, match="leads out"):
        chosen(tmp_path)
    (tmp_path / "repo" / "README.md").unlink()
    os.mkfifo(tmp_path / "repo" / "README.md")
    assert chosen(tmp_path) == ["a.jsonl"]
