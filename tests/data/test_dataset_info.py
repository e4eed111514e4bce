"""LLaMA-Factory's dataset_info.json, as it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, check
from tunewright_dataset_chat import dataset_info
from tunewright_dataset_chat.entry import Entry


def resolved(folder: Path, info: Any, **more: Any) -> tuple[Entry, str]:
    (folder / dataset_info.FILE).write_text(json.dumps({"it": info}), encoding="utf-8")
    return dataset_info.resolve(Entry(dataset_info=".", name="it", **more), folder, "data.0")


def test_file_columns_and_tags(tmp_path: Path) -> None:
    info = {
        "file_name": "sub/a.json",
        "formatting": "sharegpt",
        "columns": {
            "messages": "dialogue",
            "system": "system",
            "tools": None,
            "images": "pictures",
        },
        "tags": {"role_tag": "who", "function_tag": "call"},
        "num_samples": 9,
    }
    entry, note = resolved(tmp_path, info)
    assert entry.path == str(tmp_path / "sub" / "a.json")
    assert entry.format and entry.format.name == "sharegpt"
    assert entry.columns == {"conversations": "dialogue", "images": "pictures"}
    assert entry.tags == {"role": "who", "function_call": "call"}
    assert (entry.limit, entry.media_root) == (9, str(tmp_path))
    assert note.startswith("num_samples: the first 9 records")


QA = {"prompt": "q", "response": "a"}
OURS = {"instruction": "q", "output": "a"}


@pytest.mark.parametrize(
    ("info", "name", "columns"),
    [
        ({}, "alpaca", {}),
        ({"columns": {**QA, "query": "input", "system": "s"}}, "alpaca", {**OURS, "system": "s"}),
        ({"columns": {"prompt": "content"}}, "text", {"text": "content"}),
        (
            {"ranking": True, "columns": {"prompt": "q", "chosen": "c"}},
            "preference",
            {"instruction": "q", "chosen": "c"},
        ),
        ({"columns": {**QA, "kto_tag": "k"}}, "unpaired", {**OURS}),
        (
            {"formatting": "sharegpt", "columns": {"messages": "m", "kto_tag": "k"}},
            "unpaired",
            {"conversations": "m"},
        ),
        ({"formatting": "openai", "columns": {"messages": "m"}}, "openai", {"messages": "m"}),
    ],
)
def test_format(tmp_path: Path, info: Any, name: str, columns: dict[str, str]) -> None:
    entry, _ = resolved(tmp_path, {"file_name": "a.json", **info})
    assert entry.format and entry.format.name == name
    assert entry.columns == columns | ({"label": "k"} if name == "unpaired" else {})


def test_the_recipe_wins(tmp_path: Path) -> None:
    info = {"file_name": "a.json", "num_samples": 9, "columns": {"prompt": "q", "response": "a"}}
    entry, _ = resolved(
        tmp_path, info, format="prompts", limit=3, columns={"system": "s"}, media_root="m"
    )
    assert entry.format and entry.format.name == "prompts"
    assert (entry.limit, entry.columns, entry.media_root) == (
        3,
        {"instruction": "q", "system": "s"},
        "m",
    )


def test_hubs(tmp_path: Path) -> None:
    urls = {
        "hf_hub_url": "a/hf",
        "ms_hub_url": "a/ms",
        "om_hub_url": "a/om",
        "script_url": "x",
        "file_name": "y",
    }
    info = {**urls, "subset": "en", "split": "test", "folder": "f"}
    entry, _ = resolved(tmp_path, info)
    assert (entry.hub, entry.path, entry.subset, entry.split, entry.folder) == (
        "hf",
        "a/hf",
        "en",
        "test",
        "f",
    )
    assert resolved(tmp_path, info, hub="modelscope")[0].path == "a/ms"
    assert resolved(tmp_path, {"om_hub_url": "a/om"})[0].hub == "modelers"
    with pytest.raises(RecipeError, match="names no data set of modelers"):
        resolved(tmp_path, {"hf_hub_url": "a/hf"}, hub="modelers")
    assert resolved(tmp_path, {"cloud_file_name": "s3://a/b.json"})[0].path == "s3://a/b.json"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"file_nme": "a.json"}, r"it\.file_nme: unknown key \(did you mean 'file_name'\?\)"),
        (
            {"file_name": "a", "columns": {"promt": "x"}},
            r"it\.columns\.promt: unknown key \(did you mean 'prompt'",
        ),
        (
            {"file_name": "a", "tags": {"role": "x"}},
            r"it\.tags\.role: unknown key \(did you mean 'role_tag'",
        ),
        ({"file_name": "a", "columns": ["x"]}, r"it\.columns: found \['x'\], expected an object"),
        (
            {"file_name": "a", "columns": {"prompt": 3}},
            r"it\.columns\.prompt: found 3, expected a name",
        ),
        (
            {"file_name": "a", "formatting": "parquet"},
            r"it\.formatting: found 'parquet' \(there is: alpaca",
        ),
        ({"script_url": "x.py"}, r"it\.script_url: is a script, and no code of data sets is run"),
        (
            {"cloud_file_name": "http://169.254.169.254/x.json"},
            r"it\.cloud_file_name: found 'http://169",
        ),
        (
            {"file_name": "https://a/b.json"},
            r"it\.file_name: found 'https://a/b.json', expected a file",
        ),
        ({}, r"it\.file_name: found None, expected a file"),
        ([], r"it: found \[\], expected an object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, info: Any, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolved(tmp_path, info)
    assert caught.match(expected) or pytest.fail(str(caught.value))


def test_file_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no file"):
        dataset_info.resolve(Entry(dataset_info=".", name="it"), tmp_path, "data.0")
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / dataset_info.FILE).write_text(text)
        with pytest.raises(RecipeError, match=r"is not valid JSON|holds no data sets"):
            dataset_info.resolve(Entry(dataset_info=".", name="it"), tmp_path, "data.0")
    (tmp_path / dataset_info.FILE).write_text('{"items": {}}')
    with pytest.raises(RecipeError, match=r"has no data set 'item'"):
        dataset_info.resolve(Entry(dataset_info=".", name="item"), tmp_path, "data.0")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"it": {"file_name": "a.json"}, "it": {"file_name": "b.json"}}', "it"),
        ('{"it": {"file_name": "a.json", "file_name": "b.json"}}', "file_name"),
        ('{"x": {}, "it": {"file_name": "a", "tags": {"role_tag": "a", "role_tag": "b"}}}', "role"),
    ],
)
def test_a_key_twice_is_an_error(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / dataset_info.FILE).write_text(text)
    with pytest.raises(RecipeError, match=rf"an object has the key {key}.* twice \(leave one"):
        dataset_info.resolve(Entry(dataset_info=".", name="it"), tmp_path, "data.0")


def test_a_check_finds_what_is_not_there(tmp_path: Path) -> None:
    """With its line, before a model is loaded; not where a run is only opened."""
    write = (tmp_path / "r.yaml").write_text
    recipe = (
        "model: tiny\nfamily: qwen\nstage: sft\noutput: out\n"
        "data:\n  - {dataset_info: ., name: it}\n  - {dataset_info: ., name: ti}\n"
        "  - {dataset_info: gone, name: it}\n"
    )
    write(recipe)
    (tmp_path / dataset_info.FILE).write_text('{"it": {"file_name": "a.jsonl"}}')
    with pytest.raises(RecipeError) as caught:
        check.resolve(tmp_path / "r.yaml", look=True)
    first, second, third = caught.value.lines
    assert "r.yaml:6: data.0: " in first and "there is no file" in first
    assert "r.yaml:7: data.1.dataset_info: " in second and "there is: it" in second
    assert "r.yaml:8: data.2.dataset_info: there is no file" in third
    check.resolve(tmp_path / "r.yaml")
    write(recipe + "dataset: {name: chat, prepared: elsewhere}\n")
    check.resolve(tmp_path / "r.yaml", look=True)


# ---- a file of somebody else ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../outside.jsonl", "/etc/passwd", "a/../../outside.jsonl", "~/x.jsonl", "..\\x.jsonl"]
)
@pytest.mark.parametrize("key", ["file_name", "folder"])
def test_paths_stay_in_the_folder(tmp_path: Path, name: str, key: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "outside.jsonl").write_text('{"instruction": "a", "output": "secret"}\n')
    info = {key: name} | ({"hf_hub_url": "a/b"} if key == "folder" else {})
    with pytest.raises(RecipeError, match=rf"it\.{key}: found .*, which leads out of its folder"):
        resolved(tmp_path / "sub", info)


@pytest.mark.parametrize("name", ["link.jsonl", "folder"])
def test_links_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.jsonl").write_text("{}")
    (sub / "link.jsonl").symlink_to("../outside/a.jsonl")
    (sub / "folder").symlink_to("../outside")
    with pytest.raises(RecipeError, match=r"is a link that leads out of its folder .copy it there"):
        resolved(sub, {"file_name": name})


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"file_name": "a.json", "split": 5}, "it.split: found 5, expected text"),
        ({"file_name": "a.json", "num_samples": "all"}, "limit: "),
        ({"file_name": "a.json", "num_samples": -1}, "limit: "),
        ({"hf_hub_url": 5}, "it.hf_hub_url: found 5"),
        ({"hf_hub_url": "a/b", "subset": ["en"]}, "it.subset: found ['en']"),
        ({"hf_hub_url": "a/b", "folder": 5}, "it.folder: found 5"),
        ({"file_name": "a" * 5000}, "cannot be looked at: File name too long"),
        ({"file_name": "a.json", "formatting": ["alpaca"]}, "it.formatting: found ['alpaca']"),
    ],
)
def test_values_of_another_type_are_one_line(tmp_path: Path, info: Any, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolved(tmp_path, info)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
