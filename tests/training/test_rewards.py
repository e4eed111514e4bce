"""The ready rewards, and how a reward that is named is found and asked."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from prompts_setup import own_rewards, prompts_run
from tokenizers import pre_tokenizers
from training_setup import SIZE, VOCAB, loaded, tokenizer
from training_setup import model as policy
from transformers import AutoModelForSequenceClassification, LlamaConfig

from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.recipe import Recipe
from tunewright.run import train
from tunewright.types import LoadedModel
from tunewright_conformance.doubles import RECIPE, FakeRun
from tunewright_hf.templates.info import TemplateInfo
from tunewright_hf.training import rewards
from tunewright_hf.training.rewards import WeightedReward
from tunewright_rewards import model

__all__ = ["own_rewards"]  # a fixture


def load(section, place, *, policy=None, from_command_line=False) -> WeightedReward:
    return rewards.load(
        section, place, prompts_run(Path("no/run")), policy, from_command_line=from_command_line
    )


def scores(name, texts, columns=None, **options):
    return load({"name": name, **options}, "")(texts, columns or {})


def test_exact_match():
    texts = ["7", " 7\n", "<think>8 or\n7?</think>\n7", "7 ", "17", "", "<think>7"]
    columns = {"answer": [7] * 7, "prompts": [""] * 7}
    assert scores("exact_match", texts, columns) == [1, 1, 1, 1, 0, 0, 0]
    renamed = {"solution": [7] * 7, "prompts": [""] * 7}
    assert scores("exact_match", texts, renamed, column="solution") == [1, 1, 1, 1, 0, 0, 0]
    with pytest.raises(
        RunError, match=r"reward exact_match: the rows have no column 'answer', only prompts, solut"
    ):
        scores("exact_match", texts, renamed)


def test_format():
    texts = ["<a>x\ny</a>", " <a></a>\n", "so: <a>x</a>", "<a>x</a>!"]
    assert scores("format", texts, pattern="<a>.*</a>") == [1, 1, 0, 0]


def test_length():
    texts = ["", "ab", "abcd", "abcdef", "a" * 8, "a" * 99]
    assert scores("length", texts, target=4) == [-1, -0.5, 0, -0.5, -1, -1]


def test_valid_json():
    good = ['{"a": [1]}', " 3 ", '```json\n{"a": 1}\n```', "```\n[]\n```", "<think>{</think>[]"]
    bad = ["", "{", "{'a': 1}", 'so: {"a": 1}', "[" * 100_000]
    assert scores("valid_json", good + bad) == [1] * len(good) + [0] * len(bad)


# ---- how they are asked --------------------------------------------------------------------------


def test_the_ready_rewards_are_found_by_name():
    options = {"format": {"pattern": "x"}, "length": {"target": 3}}
    for name in ("exact_match", "format", "length", "valid_json", "http"):
        found = load({"name": name, **options.get(name, {})}, "stage.rewards.0")
        assert found.name == name
    with pytest.raises(RecipeError, match="no/run: is no run folder"):
        scores("reward_model", ["a"], {"prompts": ["b"]})  # looks into the run that asks
    asked = load({"name": "length", "target": 2, "weight": 0.5}, "stage.rewards.0")
    assert (asked.weight, asked(["ab", ""], {"prompts": ["", ""]})) == (0.5, [0, -1])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", "reward broken: fails: KeyError: 'key'"),
        ("few", "reward few: gave 1 numbers for 2 completions"),
        ("nothing", "score of reward 'nothing' gave nothing"),
        ("endless", "reward endless: gave inf"),
        (
            "short",
            (
                "reward short: fails: TypeError: short() missing 1 required keyword-only "
                "argument: 'longest'"
            ),
        ),
    ],
)
def test_a_reward_that_fails_is_reported_by_name(own_rewards, name, problem):
    with pytest.raises(RunError) as found:
        load(name, "stage.rewards.0")(["a", "b"], {})
    assert str(found.value).startswith(problem)


def test_a_reward_may_have_nothing_to_say_of_an_answer(own_rewards):
    first, second = load("in_the_row", "")(["w1", "w2"], {"good": [None, "1"]})
    assert math.isnan(first)
    assert second == 0


def test_what_cannot_be_loaded_is_reported_with_its_place():
    with pytest.raises(
        RecipeError, match=r"stage.rewards.1: .* the reward 'lenth' \(did you mean 'length'"
    ):
        load("lenth", "stage.rewards.1")
    with pytest.raises(RecipeError, match="is 'much', not a number"):
        load({"name": "length", "weight": "much"}, "")
    with pytest.raises(RecipeError, match="found None, expected the name of a reward"):
        load({"target": 3}, "")


# ---- a reward model ------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", ["<pad>", "</s>"])
def test_reward_model_scores_the_last_token(monkeypatch, pad):
    """If the pad token is the stop token, transformers would take the token before it."""
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZE, "pad_token_id": {"<pad>": 0, "</s>": 2}[pad]}, num_labels=1)
    made, words = AutoModelForSequenceClassification.from_config(config).eval(), tokenizer()
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    monkeypatch.setattr(
        model, "_load", lambda path: (LoadedModel(made, words), TemplateInfo(stop=(" </s>",)))
    )
    asked = model.Judge(asking(), loaded(policy()), "a/run")
    found = asked.score(["w3 ", "w3 w4 "], ["w5 w6", "w7"])
    for score, ids in zip(found, ([3, 5, 6, 2], [3, 4, 7, 2]), strict=True):
        states = made.model(input_ids=torch.tensor([ids])).last_hidden_state
        assert score == pytest.approx(made.score(states[0, -1]).item(), rel=1e-5)
    assert found[0] != found[1]


def asking(precision="fp32") -> FakeRun:
    """The run that asks."""
    recipe = Recipe.model_validate({**RECIPE, "training": {"precision": precision}})
    return FakeRun(Path("none"), recipe=recipe)


def recipe(folder, *overrides, **sections):
    path = folder / "recipe.yaml"
    shared = {
        "model": "tiny",
        "family": {"name": "qwen", "tiny_hidden_size": 16, "tiny_layers": 1},
        "template": "chatml",
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
        "loggers": ["jsonl"],
    }
    path.write_text(json.dumps({**shared, "output": str(folder / "run"), **sections}))
    return resolve(path, overrides)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_reward_model_of_a_run(tmp_path, adapter, precision):
    """With a model that is kept in half precision: its head computes in full all the same."""
    pairs = [{"prompt": "Is it a bird?", "chosen": "It is.", "rejected": "No."}] * 2
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    data = [{"path": str(tmp_path / "pairs.jsonl"), "format": "preference"}]
    train(recipe(tmp_path, adapter=adapter, stage="reward", data=data))
    path = str(tmp_path / "run")
    asked = model.Judge(asking(precision), loaded(policy()), path)
    found = asked.score(["<|im_start|>user\nIs it?<|im_end|>\n"] * 2, ["It is.", "No."])
    assert all(map(math.isfinite, found))
    assert found[0] != found[1]
    assert not asked.loaded.model.training


# ---- what has to be made ready, and what stands in a file ----------------------------------------

BRIEF = """
def brief(completions, *, most, **columns):
    return [float(len(text) <= most) for text in completions]

number = 3
"""


def test_options_and_the_policy_of_a_reward(own_rewards):
    asked = load({"name": "Built", "limit": 500, "weight": 2}, "", policy=loaded(policy()))
    assert (asked.name, asked.weight) == ("Built", 2)
    assert asked(["w5 w127", "w3"], {"prompts": ["", ""], "good": [1, 2]}) == [0.4, 0.2]
    assert VOCAB < 500
    for options, problem in (({"most": 3}, "most"), ({}, "limit")):
        with pytest.raises(ValueError, match=problem):
            load({"name": "Built", **options}, "stage.rewards.1", policy=loaded(policy()))


def test_a_function_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(BRIEF, "utf-8")
    monkeypatch.chdir(tmp_path)
    asked = load({"name": "mine.py:brief", "most": 2}, "", from_command_line=True)
    assert (asked.name, asked(["a", "abc"], {"prompts": ["", ""]})) == ("brief", [1, 0])
    for name, problem in {
        "mine.py:number": "mine.py has no function 'number'",
        "mine.py:long": "mine.py has no function 'long'",
        "other.py:brief": "No such file",
    }.items():
        with pytest.raises(RecipeError, match=rf"stage.rewards.0: cannot be loaded: .*{problem}"):
            load(name, "stage.rewards.0", from_command_line=True)


@pytest.mark.parametrize(
    ("written", "overrides", "runs"),
    [
        ({"name": "mine.py:brief", "most": 2}, [], False),
        ({"name": "mine.py:brief", "most": 2}, ["stage.rewards.0.weight=2"], False),
        (
            {"name": "length", "target": 2},
            ["stage.rewards.0.name=mine.py:brief", "stage.rewards.0.most=2"],
            True,
        ),
        ("valid_json", ["stage.rewards=[{name: mine.py:brief, most: 2}]"], True),
    ],
)
def test_only_the_command_line_may_name_a_file(tmp_path, monkeypatch, written, overrides, runs):
    """It is code, and a recipe may be anybody's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(f"open('ran', 'w').close(){BRIEF}", "utf-8")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Is it a bird?"}\n' * 2, "utf-8")
    stage = {"name": "grpo", "rewards": [written], "num_generations": 2, "max_new_tokens": 3}
    sections = {"stage": stage, "data": [{"path": str(tmp_path / "prompts.jsonl")}]}
    if runs:
        train(recipe(tmp_path, *overrides, **sections))
        assert "rewards/brief" in (tmp_path / "run/metrics.jsonl").read_text("utf-8")
    else:
        with pytest.raises(
            RecipeError, match=r"stage\.rewards\.0: .* only the command line may name"
        ):
            recipe(tmp_path, *overrides, **sections)
    assert (tmp_path / "ran").exists() == runs


# ---- an endpoint ---------------------------------------------------------------------------------


class Endpoint(BaseHTTPRequestHandler):
    """Answers as the path says, and remembers what it was asked."""

    asked: ClassVar[list[tuple]] = []

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((given, self.headers.get("Authorization"), self.headers["Content-Type"]))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/rewards")
            self.end_headers()
            return
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()
        if self.path == "/slow":
            threading.Event().wait(1)
        lengths = [len(text) if text else None for text in given["completions"]]
        answers = {"/text": b"7", "/list": b"[1, 2]", "/word": b'{"rewards": "12"}'}
        self.wfile.write(answers.get(self.path, json.dumps({"rewards": lengths}).encode()))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_rewards_of_an_endpoint(endpoint, monkeypatch):
    monkeypatch.setenv("REWARD_TOKEN", "a secret")
    asked = load(
        {"name": "http", "url": f"{endpoint}/rewards", "token_variable": "REWARD_TOKEN"}, ""
    )
    found = asked(["four", "", "é"], {"prompts": ["a", "b", "c"], "answer": [1, 2, 3]})
    assert found[::2] == [4, 1]
    assert math.isnan(found[1])
    given, authorization, kind = Endpoint.asked[-1]
    assert given == {"prompts": ["a", "b", "c"], "completions": ["four", "", "é"]}
    assert (authorization, kind) == ("Bearer a secret", "application/json")
    scores("http", ["a"], {"prompts": ["b"]}, url=f"{endpoint}/rewards")
    assert Endpoint.asked[-1][1] is None


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/broken", "answers 500 Internal Server Error"),
        ("/moved", "answers 302 Found"),
        ("/slow", "timed out"),
        ("/text", "is not JSON of the form"),
        ("/list", "is not JSON of the form"),
        ("/word", "`rewards` is no list"),
    ],
)
def test_an_endpoint_that_fails_is_named(endpoint, path, problem):
    asked = load(
        {"name": "http", "url": endpoint + path, "timeout": 0.2 if path == "/slow" else 30}, ""
    )
    before = len(Endpoint.asked)
    with pytest.raises(RunError, match=problem) as found:
        asked(["a"], {"prompts": ["b"]})
    assert f"{endpoint}{path}" in str(found.value)
    assert str(found.value).startswith("reward http: ")
    assert len(Endpoint.asked) == before + 1  # no redirect is followed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "ftp://a.host/x"}, "begins with http"),
        ({"url": "rewards"}, "begins with http"),
        ({"url": "http://me:hush@a.host/"}, "give no password"),
        ({"token_variable": "NO_SUCH_TOKEN"}, "NO_SUCH_TOKEN holds no token"),
        ({"url": "http://127.0.0.1:1/x"}, "http://127.0.0.1:1/x: .*refused"),
    ],
)
def test_addresses_that_are_no_good(options, problem):
    with pytest.raises(RunError, match=problem) as found:
        load({"name": "http", **options}, "")(["a"], {"prompts": ["b"]})
    assert "hush" not in str(found.value)


# ---- columns that they need ----------------------------------------------------------------------


def test_a_function_needs_what_it_has_no_default_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def kind(completions, gold, *, level, limit, tries=3, **others):\n    return [0.0]\n"
    )
    section = {"name": "mine.py:kind", "limit": 5}
    found = load(section, "", from_command_line=True)
    assert found.needed == ("gold", "level")
    problem, hint = rewards.missing("kind", found.needed, {"gold", "prompts", "lvl"})
    assert problem == "reward kind needs the column 'level', and the rows have gold, lvl"
    assert "`columns: {level: gold}`" in hint
    assert rewards.missing("kind", found.needed, {"gold", "prompts", "level"}) == ("", "")
