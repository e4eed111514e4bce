"""Files that are one JSON list, read in parts."""

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunewright import RowError
from tunewright_dataset_chat import readers
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def parse(data: bytes, chunk: int) -> list[Any]:
    before, readers._CHUNK = readers._CHUNK, chunk
    try:
        found = list(
            readers.json_file(io.BufferedReader(io.BytesIO(data)), "a.json", MAX_RECORD_BYTES)
        )  # type: ignore[arg-type]
    finally:
        readers._CHUNK = before
    assert [item[0].line for item in found if not isinstance(item, RowError)] == list(
        range(1, len(found) + 1)
    )
    return [item[1] for item in found if not isinstance(item, RowError)]


@given(st.lists(values), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
@example([123456, -1.5e300, 7], 1, False, None)
def test_json_in_parts_is_json(
    records: list[Any], chunk: int, ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(records, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    try:
        data.decode()
    except UnicodeDecodeError:
        return
    assert parse(data, chunk) == records


@given(st.lists(values, min_size=1, max_size=3), st.integers(1, 40), st.data())
def test_broken_json_is_an_error_in_its_line(
    records: list[Any], chunk: int, data: st.DataObject
) -> None:
    text = json.dumps(records, indent=1).encode()
    cut = data.draw(st.integers(1, len(text) - 1))
    with pytest.raises(RowError, match="is not valid JSON") as caught:
        parse(text[:cut], chunk)
    assert 1 <= int(caught.value.place.removeprefix("a.json:")) <= text[:cut].count(b"\n") + 1
    with pytest.raises(RowError, match="after the list"):
        parse(text + b"x", chunk)


def test_line_of_a_late_error() -> None:
    text = "[\n" + ",\n".join('{"a": "' + "b" * 90 + '"}' for _ in range(50)) + ",\n{'a': 1}\n]"
    with pytest.raises(RowError) as caught:
        parse(text.encode(), 64)
    assert caught.value.place == "a.json:52"
