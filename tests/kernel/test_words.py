"""Numbers in sentences, and keys that stand there twice."""

import pytest

from tunewright.jsontext import RepeatedKeys, unique_keys
from tunewright.words import counted


def test_one_is_singular_and_thousands_have_commas():
    assert [counted(n, "row") for n in (0, 1, 2, 1200)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "1,200 rows",
    ]


def test_repeated_keys_are_named_in_short():
    assert unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    many = [(f"\x1b[{n}" * 50, n) for n in range(20)] * 2
    with pytest.raises(RepeatedKeys) as error:
        unique_keys(many)
    assert len(error.value.keys) == 20
    assert len(str(error.value)) < 300 and str(error.value).isprintable()
