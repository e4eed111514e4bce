"""Hostile tokenizer.json: the library would panic, run for hours or take all memory. Here it is one
line with the field, and quickly; and the tokenizers of all families pass."""

import base64
import json
import time
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest
from hostile_tokenizers_setup import Json, refused, template
from loading_setup import load

from tunewright_conformance.doubles import FakeRun
from tunewright_hf.models import tiny
from tunewright_hf.models.tokenizer_json import check_tokenizer_json
from tunewright_hf.models.tokenizer_probe import find_problem


def split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def replace(old: str, new: str) -> Json:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def precompiled(content: bytes | str | None) -> Json:
    written = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    return {"type": "Precompiled", "precompiled_charsmap": written}


def test_every_twin_passes(tmp_path: Path) -> None:
    """Their patterns and steps are those of the real tokenizers."""
    tried = 0
    for entry in metadata.entry_points(group="tunewright.family"):
        text = resources.files(entry.module.partition(".")[0]).joinpath("tiny.toml").read_text()
        for table in tomllib.loads(text)["twin"]:
            tokenizer = tiny.tokenizer(tiny.TinyModelSpec(**table))
            tokenizer.save_pretrained(tmp_path)
            added = check_tokenizer_json(tmp_path / "tokenizer.json")
            assert set(table["special"]) <= added.keys()
            tried += 1
    assert tried > 50


# ---- steps and their values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "step", "problem"),
    [
        ("normalizer", {"type": "Evil"}, "normalizer.type: is 'Evil', not one of"),
        ("normalizer", [1], "normalizer: is list, not an object"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "x"}]},
            "normalizer.normalizers.1.type: is 'x'",
        ),
        ("pre_tokenizer", {"type": "Sequence"}, "pre_tokenizer.pretokenizers: is missing"),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "pre_tokenizer.length: is 0"),
        ("pre_tokenizer", {"type": "Split", "pattern": "a"}, "pre_tokenizer.pattern: is not"),
        ("pre_tokenizer", split("x" * 20_001), "pattern: has more than 20000 characters"),
        (
            "normalizer",
            {"type": "Prepend", "prepend": "x" * 1001},
            "normalizer.prepend: is no text",
        ),
        ("decoder", {"type": "Pickle"}, "decoder.type: is 'Pickle'"),
        ("post_processor", {"type": "Pickle"}, "post_processor.type: is 'Pickle'"),
        (
            "post_processor",
            template(single=[{"Sequence": {"id": "B", "type_id": 0}}]),
            "post_processor.single.0: is sequence 'B'",
        ),
        (
            "post_processor",
            template(single=[{"SpecialToken": {"id": "<x>", "type_id": 0}}]),
            "post_processor.single.0: is '<x>', which is not among special_tokens",
        ),
        ("padding", {"strategy": {"Fixed": 10**12}}, "padding.strategy: is 1000000000000"),
        ("padding", {"pad_to_multiple_of": 10**12}, "padding.pad_to_multiple_of: is 1000000000000"),
        ("truncation", {"max_length": -1}, "truncation.max_length: is -1"),
    ],
)
def test_strange_step_is_refused(
    run: FakeRun, checkpoint: Path, section: str, step: Any, problem: str
) -> None:
    assert problem in refused(run, checkpoint, lambda found: found.update({section: step}))


def test_nested_too_deep(run: FakeRun, checkpoint: Path) -> None:
    step: Json = {"type": "NFC"}
    for _ in range(50):
        step = {"type": "Sequence", "normalizers": [step]}
    problem = refused(run, checkpoint, lambda found: found.update(normalizer=step))
    assert "nested too deep" in problem


@pytest.mark.parametrize("section", ["normalizer", "decoder"])
def test_replacements_that_grow_are_refused(run: FakeRun, checkpoint: Path, section: str) -> None:
    """Six of them make four thousand million letters of one."""
    inner = "normalizers" if section == "normalizer" else "decoders"
    chain = {"type": "Sequence", inner: [replace("e", "e" * 40)] * 6}
    problem = refused(run, checkpoint, lambda found: found.update({section: chain}))
    assert f"{section}: makes a text up to 4,096,000,000 times as long" in problem


def test_replacements_of_real_tokenizers_pass(run: FakeRun, checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    steps = [replace("``", '"'), replace(" ", "▁"), {"type": "Prepend", "prepend": "▁"}]
    steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"})
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    path.write_text(json.dumps(content))
    assert load(run, str(checkpoint)).tokenizer.backend_tokenizer.normalizer.normalize_str("a b")


# ---- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "(a|a)*b",
        "(.*)*(.*)*(.*)*(.*)*x$",
        "(x+x+)+y",
        "(?:uvw|uvwuvw)*z",
        r"(\w|\w\w)*\d!",
        r"([\p{Thai}]|[\p{Thai}]{2})+!!",
        r"(?:\(\)|\(\)\(\))*\[",
    ],
)
def test_exponential_pattern(pattern: str) -> None:
    problem = find_problem(json.dumps({"pre_tokenizer": split(pattern)}))
    assert problem is not None
    assert "retry-limit" in problem or "take more than" in problem


def test_cubic_pattern_is_ended(run: FakeRun, checkpoint: Path) -> None:
    """It does not panic: 1,000 letters take a minute and a half, and 10,000 a day."""
    start = time.process_time()
    step = split("a*a*a*b|.")
    problem = refused(run, checkpoint, lambda found: found.update(pre_tokenizer=step))
    assert "tokenizer.json: its steps take more than" in problem
    assert time.process_time() - start < 5  # of this process; the other was ended


@pytest.mark.parametrize("section", ["normalizer", "decoder"])
def test_patterns_of_replacements_are_tried(section: str) -> None:
    step = {"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": ""}
    assert "retry-limit" in (find_problem(json.dumps({section: step})) or "")


@pytest.mark.parametrize("pattern", ["((", "[z-a]", r"\p{Nonsense}"])
def test_pattern_that_is_none(pattern: str) -> None:
    assert "cannot be run" in (find_problem(json.dumps({"pre_tokenizer": split(pattern)})) or "")


@pytest.mark.parametrize(
    "pattern",
    [
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}&&[^\p{Han}]]*[\p{Ll}]+(?i:'s|'t)?|\s+(?!\S)|\s+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+|\s?\p{L}+|\s*[\r\n]+",
    ],
)
def test_pattern_of_a_real_kind_passes(pattern: str) -> None:
    assert find_problem(json.dumps({"pre_tokenizer": split(pattern)})) is None


@pytest.mark.parametrize(
    "content",
    [
        "AAAA",
        "!!",
        "",
        None,
        b"\x08\0\0\0" + b"\xff" * 8 + b"abc",
        b"\xff\xff\xff\xff" + b"\xff" * 8,
        b"\x04\0\0\0" + b"\0" * 4 + b"e" * 1000,
    ],
    ids=["short", "no base64", "empty", "null", "points nowhere", "length", "grows"],
)
def test_broken_table_of_characters(
    run: FakeRun, checkpoint: Path, content: bytes | str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each is a panic in Rust, which is no Exception and prints a stack trace."""
    step = precompiled(content)
    problem = refused(run, checkpoint, lambda found: found.update(normalizer=step))
    assert "tokenizer.json: " in problem
    assert "its steps cannot be run" in problem or "normalizer.precompiled_charsmap: " in problem
    assert "panicked" not in capfd.readouterr().err


def test_no_process_without_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    assert find_problem(json.dumps({"normalizer": replace(" ", "▁"), "decoder": None})) is None
