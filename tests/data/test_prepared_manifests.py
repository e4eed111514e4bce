"""Manifests of prepared rows that are none: one line with the folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.prepared_setup import prepare, refused, resign, trained
from tunewright.errors import TunewrightError

__all__ = ["prepare"]

MANIFESTS: dict[str, Any] = {
    "list": [],
    "text": "x",
    "no tally": {"tally": None},
    "empty tally": {"tally": {}},
    "tally of texts": {"tally": {"records": "3"}},
    "notes": {"tally": {"records": 1, "dropped": {}, "changed": {}, "bad": [], "notes": [5]}},
    "settings": {"settings": 5},
    "rows": {"rows": "3"},
    "bytes": {"bytes": 5},
    "weighted": {"weighted": "no"},
    "sha256": {"sha256": "0" * 64},
    "entry": {"entry": None},
    "format": {"format": 1},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_none(prepare: Any, tmp_path: Path, name: str) -> None:
    folder, value = prepare(), MANIFESTS[name]
    file = folder / "manifest.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | value if isinstance(value, dict) else value))
    assert f"{folder.name} is not whole, or was written by another version" in refused(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["records", "notes", "dropped", "rows", "x"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ["format", "rows", "bytes", "identity", "entry", "settings", "tally", "weighted"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    field=st.sampled_from(FIELDS),
    inner=st.none() | st.sampled_from(["records", "notes", "bad"]),
    value=JSON,
)
def test_no_manifest_is_a_crash(
    prepare: Any, tmp_path: Path, field: str, inner: str | None, value: Any
) -> None:
    folder = next(iter((tmp_path / "made").glob("*/")), None) or prepare()
    manifest = json.loads((folder / "manifest.json").read_text())
    changed_one = json.loads(json.dumps(manifest))
    if inner:
        changed_one["tally"][inner] = value
    else:
        changed_one[field] = value
    (folder / "manifest.json").write_text(json.dumps(changed_one))
    said = ""
    try:
        trained(tmp_path)
    except TunewrightError as error:
        said = str(error)
    finally:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "\n" not in said


def test_a_manifest_that_is_deep_or_no_json(prepare: Any, tmp_path: Path) -> None:
    for text in ("[" * 100_000, "", "{", "\udcff"):
        folder = prepare()
        (folder / "manifest.json").write_text(text, errors="surrogateescape")
        assert "is not whole" in refused(tmp_path)
        shutil.rmtree(tmp_path / "made")


def test_rows_that_the_manifest_does_not_count(prepare: Any, tmp_path: Path) -> None:
    resign(prepare(), rows=2)
    assert "has 3 rows, and its manifest says 2" in refused(tmp_path)
