"""YAML as recipes may use it: 1.2's scalars, and one line for everything that is none."""

import os
import threading

import pytest

from tunewright import check, yamlio
from tunewright.errors import RecipeError


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("010", 10),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0xff", 255),
        ("+12", 12),
        ("-0", 0),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e-2", -0.005),
        ("0b11", "0b11"),
        ("off", "off"),
        ("n", "n"),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("=", "="),
        ("1e", "1e"),
        ("e1", "e1"),
        ("+", "+"),
        ("0x", "0x"),
        ("0o9", "0o9"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("!!float 12", 12.0),
        ("!!bool true", True),
        ("!!null x", None),
        ('"\\u00e9"', "é"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written, value):
    found = yamlio.parse(f"a: {written}", "r")[0]["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: !!int foo", 2, "'foo' is no integer"),
        ('a: !!int ""', 1, "'' is no integer"),
        ("a: !!int 1_000", 1, "is no integer"),
        ('a: !!float ""', 1, "'' is no number"),
        ("a: !!float 1_0.5", 1, "is no number"),
        ("a: !!bool maybe", 1, "'maybe' is neither true nor false"),
        ("a: !!timestamp foo", 1, "could not determine a constructor"),
        ("a: !!binary x", 1, "could not determine a constructor"),
        ("a: !!set {x}", 1, "could not determine a constructor"),
        ("a: !!python/name:os.system", 1, "could not determine a constructor"),
        ("a: !mine x", 1, "could not determine a constructor"),
        ("a: !!int [1]", 1, "is no integer"),
        ("a: !!str [1]", 1, "expected a scalar node"),
        ("a: !!map [1]", 1, "expected a mapping node"),
        ("a: " + "9" * 5000, 1, "is no integer"),
        ("a: 1\nb: \x13", 0, "special characters are not allowed"),
        ("# \x13", 0, "special characters are not allowed"),
        ("a: \ud800", 0, "special characters are not allowed"),
        ('a: 1\nb: "\\ud800"', 2, "half of a surrogate pair"),
        ('a: "\\UFFFFFFFF"', 1, "is not safe, valid YAML"),
        ('a: "\\q"', 1, "unknown escape character"),
        ("a: 1\na: 2", 2, "a stands there twice"),
        ("a: {b: 1, b: 2}", 1, "a.b stands there twice"),
        ("a: 1\n1: 2\n'1': 3", 3, "1 stands there twice"),
        ("? [a]\n: 1", 1, "unhashable key"),
        ("a: *b", 1, "undefined alias"),
        ("a: &b 1\nc: &b 2", 2, "second occurrence"),
        ("<<: 5", 1, "expected a mapping"),
        ("a: 1\n---\nb: 2", 2, "but found another document"),
        ("%YAML 9.9\n---\na: 1", 1, "incompatible YAML document"),
        ("a: [", 1, "is not safe, valid YAML"),
        ("\tb: 1", 1, "cannot start any token"),
        ("a: " + "[" * 50 + "]" * 50, 0, "nested deeper than 40 levels"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)),
            0,
            "nested deeper than 40 levels",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_value_is_one_line_with_its_line(text, line, said):
    with pytest.raises(RecipeError) as error:
        yamlio.parse(text, "r.yaml")
    (only,) = error.value.lines
    assert said in only and len(only) < 300
    assert only.startswith(f"r.yaml:{line}: " if line else "r.yaml")


def test_merged_keys_are_read():
    text = "base: &base {a: 1, b: 2}\nown: {<<: *base, b: 3}"
    assert yamlio.parse(text, "r")[0]["own"] == {"a": 1, "b": 3}


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    value, lines = yamlio.read(tmp_path / "r.yaml")
    assert value == {"a": 1, "b": 2}
    assert lines[("b",)] == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
def test_what_never_ends_is_not_read(tmp_path, kind):
    path = tmp_path / "r.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    said: list[str] = []

    def read() -> None:
        try:
            check.resolve(path)
        except RecipeError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert len(said) == 1, "it does not end"
    assert "is not a file" in said[0] or "cannot be read" in said[0]
