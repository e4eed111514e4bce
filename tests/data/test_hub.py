"""Data sets of hubs. The hubs' libraries are stood in for: nothing here uses the network."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest

from tunewright import RecipeError, RowError
from tunewright_dataset_chat import hub
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.source import Source, open_sources

RECORDS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
ENTRY = {"path": "me/set", "split": "test", "subset": "en", "folder": "f", "revision": "v1"}


def opened(**entry: Any) -> Source:
    (source,) = open_sources([Entry.model_validate(entry)], "data", Path())
    return source


def read(source: Source) -> list[Any]:
    return [item[1] for item in source.read() if not isinstance(item, RowError)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for the three libraries, which note how they are called."""
    noted: dict[str, Any] = {}
    data = datasets.Dataset.from_list(RECORDS)

    class Ms:
        @staticmethod
        def load(*given: Any, **more: Any) -> Any:
            noted["modelscope"] = given, more
            return Ms()

        def to_hf_dataset(self) -> Any:
            return data

    class Om:
        @staticmethod
        def load_dataset(*given: Any, **more: Any) -> Any:
            noted["modelers"] = given, more
            return data

    def load_dataset(*given: Any, **more: Any) -> Any:
        noted["hf"] = given, more
        return data

    modelscope, inner, openmind = (
        ModuleType(name) for name in ("modelscope", "modelscope.msdatasets", "openmind")
    )
    inner.MsDataset = Ms  # type: ignore[attr-defined]
    openmind.OmDataset = Om  # type: ignore[attr-defined]
    for module in (modelscope, inner, openmind):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(hub, "find_spec", lambda name: object())
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return noted


@pytest.mark.parametrize("name", ["hf", "modelscope", "modelers"])
def test_each_hub_through_its_library(name: str, calls: dict[str, Any]) -> None:
    source = opened(hub=name, **ENTRY)
    assert calls == {}
    assert read(source) == RECORDS
    given, more = calls[name]
    assert given[0] == "me/set"
    assert {"test", "en", "f", "v1"} <= {
        *given,
        *(value for value in more.values() if isinstance(value, str)),
    }
    assert not more.get("trust_remote_code")
    assert not more.get("streaming")
    assert [str(item[0]) for item in source.read() if isinstance(item, tuple)] == [
        f"{name}:me/set/en/test:1",
        f"{name}:me/set/en/test:2",
    ]
    assert source.title == f"{name}:me/set/en/test"


def test_train_is_read_where_no_split_is_named(calls: dict[str, Any]) -> None:
    read(opened(hub="hf", path="set"))
    assert calls["hf"][1]["split"] == "train"


def test_media_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"bytes": b"no picture at all", "path": None}
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_list([{"image": stored}], features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: data)
    assert read(opened(hub="hf", path="set")) == [{"image": stored}]


def test_digest_changes_with_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(records: list[Any], on_disk: bool) -> list[str]:
        data: Any = datasets.Dataset.from_list(records)
        if on_disk:
            data.save_to_disk(tmp_path / "saved")
            data = datasets.load_from_disk(tmp_path / "saved")
        monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: data)
        return opened(hub="hf", path="set").digests()

    for on_disk in (False, True):
        assert digest(RECORDS, on_disk) == digest(RECORDS, on_disk)
        assert digest(RECORDS, on_disk) != digest(RECORDS[:1], on_disk)


@pytest.mark.parametrize(
    ("name", "package"), [("modelscope", "modelscope"), ("modelers", "openmind")]
)
def test_missing_library_is_named_before_anything_is_read(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=f"{name} needs {package}") as caught:
        opened(hub=name, path="me/set")
    assert caught.value.hint.startswith(f"pip install {package}")


@pytest.mark.parametrize("path", ["../../x", "me/../x", "/etc", "me/set/more", ".", "", "me/.x"])
def test_only_names_of_data_sets(path: str) -> None:
    with pytest.raises(
        (RecipeError, ValueError), match=r"expected the name of a data set|at least 1"
    ):
        opened(hub="hf", path=path)


def test_failing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise ConnectionError("no\nanswer")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(RecipeError, match="hf:me/set/train cannot be loaded: no answer"):
        read(opened(hub="hf", path="me/set"))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "either path or dataset_info"),
        ({"path": "a", "dataset_info": "b", "name": "c"}, "either path or dataset_info"),
        ({"path": "a", "name": "b"}, "go together"),
        ({"dataset_info": "a"}, "go together"),
        ({"path": "a", "folder": "en"}, "folder is for data sets of a hub"),
        ({"path": "a", "revision": "en"}, "revision is for data sets of a hub"),
        ({"path": "a", "hub": "github"}, "'hf', 'modelscope' or 'modelers'"),
        ({"path": "a", "format": "alpca"}, "gives the format 'alpca' .did you mean 'alpaca'"),
        (
            {"path": "a", "format": {"name": "ranking", "pairs": "all"}},
            "pairs: found 'all', expected 'best' or",
        ),
        (
            {"path": "a", "format": {"name": "ranking", "pears": "best"}},
            "unknown key .did you mean 'pairs'",
        ),
    ],
)
def test_entries_that_mean_nothing(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Entry.model_validate(entry)


def test_schema_of_an_entry_is_json() -> None:
    assert "dataset_info" in json.dumps(Entry.model_json_schema())


def test_a_hub_is_streamed_or_refused(
    calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*given: Any, streaming: bool, **more: Any) -> Any:
        assert streaming
        return datasets.Dataset.from_list(RECORDS).to_iterable_dataset()

    source = opened(hub="hf", **ENTRY)
    assert source.hub
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source.hub = source.hub.streamed()
    assert read(source) == read(source) == RECORDS  # once an epoch
    for name in ("modelscope", "modelers"):
        other = opened(hub=name, **ENTRY).hub
        assert other
        with pytest.raises(RecipeError, match=f"{name} does not stream"):
            other.streamed()


def test_a_folder_of_that_name_is_not_read_instead(
    tmp_path: Path, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "set").mkdir(parents=True)
    with pytest.raises(RecipeError, match="'me/set' is also a folder here, which the library"):
        opened(hub="hf", **ENTRY)
    assert opened(hub="modelers", **ENTRY).records == 0
    assert calls == {}


def test_a_librarys_error_is_one_line_with_words(
    calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise ValueError("\n\nConfig name is missing.\n\nPick one among: en, de\n" + "x" * 9000)

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(RecipeError, match="Pick one among: en, de") as caught:
        read(opened(hub="hf", path="me/set"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_hub_that_fails_while_it_is_streamed(calls: dict[str, Any]) -> None:
    class Failing:
        def with_format(self, name: str) -> "Failing":
            return self

        def iter(self, batch_size: int) -> Any:
            raise ConnectionError("gone\naway")

    source = opened(hub="hf", path="me/set")
    assert source.hub
    source.hub.load = lambda entry, split: Failing()
    with pytest.raises(RowError, match="hf:me/set/train: cannot be read on: gone away"):
        read(source)
