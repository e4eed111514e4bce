"""Hypothesis strategies: recipes of the installed plugins, mutated as values and as YAML text."""

import string
from typing import Any

import yaml
from hypothesis import strategies as st

GOOD: list[dict[str, Any]] = [
    {
        "model": "tiny",
        "family": {"name": "qwen", "tiny_layers": 1},
        "template": "chatml",
        "adapter": {"name": "lora", "rank": 4},
        "data": [{"path": "a.jsonl", "weight": 0.5}, {"path": "b.jsonl", "tags": {"role": "from"}}],
        "eval_data": {"held": [{"path": "c.jsonl"}]},
        "stage": {"name": "sft", "packing": True},
        "training": {"learning_rate": 2e-4, "epochs": 1, "max_steps": 5},
        "loggers": ["console", {"name": "jsonl"}],
        "output": "runs/a",
    },
    {
        "model": "org/some-model",
        "data": [{"path": "a.jsonl"}],
        "stages": [
            {"name": "sft", "data": [{"path": "s.jsonl"}], "training": {"epochs": 2}},
            {"name": "dpo", "beta": 0.1, "data": [{"path": "p.jsonl"}], "eval_data": {}},
        ],
        "accelerators": ["fsdp"],
        "quantizer": {"name": "bitsandbytes"},
        "adapter": "lora",
        "launch": {"processes": 2},
        "output": "~/runs/b",
        "data_root": "data",
    },
]

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**53 + 1, 2**64, 10**18, 10**400, -(10**30)]),
    st.floats(),
)
NAMES = st.sampled_from(
    [
        "sft",
        "dpo",
        "lora",
        "full",
        "qwen",
        "chatml",
        "auto",
        "hf",
        "chat",
        "adamw",
        "console",
        "tunewright-lora:lora",
        ":",
        "x:",
        ":lora",
        "a:b:c",
        "",
        " ",
        "../x",
        "/dev/zero",
        "~",
        "~x",
        "~nosuchuser/x",
        "https://u:p@h/x",
        "https://[",
        "file:///etc/passwd",
        "a\x00b",
        "\x1b[31m",
        "\ud800",
        "\u202e",
        "é",
        "null",
        "yes",
        "1e9",
        "x" * 5000,
        "random",
        "cosine",
        "bf16",
        "tiny",
        "name",
        "path",
        "training",
    ]
)
TEXTS = st.one_of(NAMES, st.text(max_size=20))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
KEYS = st.one_of(TEXTS, st.integers(-1, 3), st.none(), st.booleans(), st.floats(0, 1))
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a value."""
    found = [at] if at else []
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += paths(item, (*at, key))
    return found


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A good recipe with one to four changes: other values, other keys, something less."""
    recipe = copied(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        where = paths(recipe)
        if not where:
            return recipe
        *parents, last = draw(st.sampled_from(where))
        here = recipe
        for key in parents:
            here = here[key]
        change = draw(st.sampled_from(["value", "value", "name", "key", "new", "less"]))
        if change == "value":
            here[last] = draw(JUNK)
        elif change == "name":
            here[last] = draw(NAMES)
        elif change == "less":
            del here[last]
        elif isinstance(here, dict):
            item = here.pop(last) if change == "key" else draw(JUNK)
            here[draw(KEYS)] = item
    return recipe


@st.composite
def overrides(draw: st.DrawFn) -> str:
    """Arguments after the recipe on the command line."""
    dotted = ".".join(
        map(str, draw(st.sampled_from([path for recipe in GOOD for path in paths(recipe)])))
    )
    key = draw(st.one_of(st.just(dotted), TEXTS, st.just(f"{dotted}.x"), st.just(f"{dotted}.9")))
    value = draw(st.one_of(SCALARS.map(str), yaml_texts()))
    return draw(st.sampled_from([f"{key}={value}", f"{key}={value}", key, f"={value}", "=", ""]))


SPICES = st.sampled_from(
    [
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!timestamp ",
        "!!binary ",
        "!!set ",
        "!!omap ",
        "!!null ",
        "!!python/name:os.system ",
        "!mine ",
        "!<tag:x> ",
        "&a ",
        "*a ",
        "*b",
        "<<: ",
        "? ",
        "- ",
        "| ",
        "> ",
        "[",
        "{",
        "}",
        "]",
        ": ",
        ", ",
        "'",
        '"',
        "# ",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        "%YAML 9.9.9\n",
        "%TAG ! x\n",
        "\t",
        "\x13",
        "\x00",
        "\ufeff",
        "\u2028",
        "\x85",
        '"\\ud800"',
        '"\\UFFFFFFFF"',
        '"\\x"',
        '"\\u12"',
        "0x",
        "0o9",
        "1_000",
        "1:30",
        "010",
        ".inf",
        "-.INF",
        ".nan",
        "~",
        "=",
        "9" * 5000,
        "1e999",
        "\n",
        "\n  ",
        "\r",
        "&a [*a]",
        "@",
        "`",
        "a: &x [1]\nb: &y [*x, *x]\nc: [*y, *y]\n",
        "{a: 1, a: 2}",
        "[" * 60,
    ]
)


@st.composite
def yaml_texts(draw: st.DrawFn) -> str:
    """The text of a recipe with tags, anchors, escapes and control characters put into it."""
    whole = yaml.safe_dump(draw(st.sampled_from(GOOD)), sort_keys=False)
    text = draw(st.one_of(st.just(whole), st.text(string.printable, max_size=30)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        drop = draw(st.integers(0, 3))
        text = text[:at] + draw(SPICES) + text[at + drop :]
    return text
