"""`tunewright compare`: what differs between runs, in the terminal and on a page of its own."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from predict.trained import call, train
from tunewright import RecipeError, RunError
from tunewright_compare import command
from tunewright_compare.chart import chart
from tunewright_compare.comparison import number
from tunewright_evaluate import command as evaluate

EVIL = '</td><script>alert("1")</script><img src="http://evil.example/x">\x1b[31m'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs short and long, both evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("short", 2), ("long", 6)):
        training = {"max_steps": steps, "learning_rate": 0.01, "precision": "fp32"}
        shutil.move(train(folder, training=training | {"logging_steps": 1}), folder / name)
        generation = ("data=greetings", "max_new_tokens=4", "metrics=[f1,exact_match]")
        call(evaluate, folder / name, "--with", "generation", *generation)
        call(evaluate, folder / name, "--with", "perplexity", "data=greetings")
    return folder


@pytest.fixture
def runs(base: Path, tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(base / name, tmp_path / name)) for name in ("short", "long")]


def compare(runs: list[Path], *more: Any) -> str:
    return call(command, *runs, *more).output


def as_json(runs: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(compare(runs, "--json"))
    return found


def evaluation(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"evaluations/{name}/results.json").read_text())
    return found


def test_metrics_recipes_and_samples(runs: list[Path]) -> None:
    found = as_json(runs)
    assert found["runs"] == ["short", "long"]
    assert found["recipes"]["training.max_steps"] == {"short": "2", "long": "6"}
    assert not [name for name in found["recipes"] if name.startswith(("output", "model"))]
    assert found["metrics"]["steps"] == {"short": 2, "long": 6}
    for name, run in zip(("short", "long"), runs, strict=True):
        own = evaluation(run, "perplexity")["metrics"]["perplexity"]
        assert found["metrics"]["perplexity: perplexity"][name] == own
    assert len(found["curves"]["long"]["loss"]) == 6
    assert found["curves"]["short"]["greetings loss"]
    (first, _) = found["samples"]
    assert first["label"]["content"] == "Hello, Ann!"
    assert len(first["predictions"]) == 2


def test_table(runs: list[Path]) -> None:
    lines = compare(runs, "--samples", 1).splitlines()
    assert lines[0].split() == ["metric", "short", "long"]
    perplexity = next(line for line in lines if line.startswith("perplexity: perplexity"))
    short, long = perplexity.split()[-2:]
    assert "*" not in short  # a lower one is better
    assert long.endswith("*")
    assert any(line.split() == ["training.max_steps", "2", "6"] for line in lines)
    assert any(line.startswith("generation: Say hello to Ann.") for line in lines)
    assert sum(line.startswith("  (data): ") for line in lines) == 1


def test_resumed_steps_count_once(runs: list[Path]) -> None:
    events = runs[0] / "events.jsonl"
    logged = {"event": "Logged", "stage": "sft", "step": 1, "metrics": {"loss": 7.5}}
    with events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(logged) + '\n{"event": "Logged", "st')  # torn by a kill
    assert as_json(runs)["curves"]["short"]["loss"]["1"] == 7.5


def test_an_evaluation_of_earlier_weights_is_named(runs: list[Path]) -> None:
    file = runs[1] / "evaluations/generation/results.json"
    value = evaluation(runs[1], "generation")
    value["settings"]["run"] = "0" * 64
    file.write_text(json.dumps(value))
    said = compare(runs)
    assert "note: long: the evaluation generation is of an earlier training" in said
    assert "short: the evaluation" not in said


class Page(HTMLParser):
    """Tags and attributes of a page; it is well formed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [name for name, _ in attrs if name in ("src", "href", "srcset", "style")]
        self.addresses += [value or "" for name, value in attrs if name.startswith("on")]
        if tag not in ("meta", "line", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page(runs: list[Path], tmp_path: Path) -> None:
    """One file, well formed, without script or address; what runs say is text, whatever it is."""
    evil = runs[1].with_name("a&<b>")
    runs[1].rename(evil)
    recipe = json.loads((evil / "run.json").read_text())
    recipe["recipe"]["data"][0]["path"] = EVIL
    (evil / "run.json").write_text(json.dumps(recipe))
    lines = (evil / "evaluations/generation/predictions.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["prediction"]["content"] = EVIL
    text = "\n".join([json.dumps(row), *lines[1:]]) + "\n"
    (evil / "evaluations/generation/predictions.jsonl").write_text(text)
    events = (evil / "events.jsonl").read_text().replace('"greetings"', json.dumps(EVIL))
    (evil / "events.jsonl").write_text(events)
    html = tmp_path / "out.html"
    assert "holds the comparison" in compare([runs[0], evil], "--html", html)
    text = html.read_text("utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.tags.count("svg") >= 3
    assert not {"script", "img", "link", "iframe", "b"} & set(page.tags)
    assert set(page.addresses) <= {"style"}
    assert "http" not in re.sub(r"http-equiv|&lt;img src=&quot;http://evil", "", text)
    assert "default-src 'none'" in text
    assert "\x1b" not in text
    # a prediction, a path, and the label and title of a curve
    assert text.count("&lt;script&gt;") == 4
    assert "a&amp;&lt;b&gt;" in text
    with pytest.raises(RecipeError, match="exists already"):
        compare([runs[0], evil], "--html", html)
    compare([runs[0], evil], "--html", html, "--overwrite")


def test_chart() -> None:
    curve = {step: 1 / step for step in range(1, 5000)}
    drawn = chart("loss", {"one": curve, "two": {3: float("nan")}}, {"one": "#111", "two": "#222"})
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    places = [tuple(map(float, each.split(","))) for each in points.split()]
    assert len(places) <= 602
    assert places == sorted(places)  # to the right, and down: y grows downwards
    assert places[-1][0] == 448  # the last step stays
    assert chart("loss", {"two": {3: float("inf")}}, {"two": "#222"}) == ""
    assert "polyline" in chart("flat", {"one": {1: 2.0}}, {"one": "#111"})


def test_numbers() -> None:
    values = (None, 0.123456, 12345, 99.5)
    assert [number(value) for value in values] == ["–", "0.1235", "12,345", "99.5"]
    assert number(50, 1.234) == "50 ± 1.2"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda runs: runs.pop(), RecipeError, "one run is named"),
        (lambda runs: runs.append(runs[0]), RecipeError, "two runs are named"),
        (lambda runs: runs.append(runs[0] / "model"), RecipeError, "is no run folder"),
        (
            lambda runs: (runs[0] / "evaluations/generation/results.json").write_text("{"),
            RunError,
            "results.json: is damaged",
        ),
    ],
    ids=["one", "same", "other", "damaged"],
)
def test_mistakes(runs: list[Path], change: Any, error: Any, message: str) -> None:
    change(runs)
    with pytest.raises(error) as raised:
        compare(runs)
    assert message in str(raised.value)
