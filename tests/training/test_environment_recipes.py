"""Environments in recipes: games and tools in files, and what is wrong with them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunewright import RecipeError, RunError
from tunewright.check import resolve
from tunewright.errors import Stopped
from tunewright.events import Logged, Sampled
from tunewright.run import train
from tunewright_conformance.trial import Trial, check_resumed, recipe
from tunewright_grpo.environments import load

TOOLS = '''
def shout(text: str) -> str:
    """Say it louder.

    Args:
        text: what to say
    """
    return text.upper()


def _hidden(text):
    return text
'''
GAME = '''
class Count:
    """Rewards turns by their number of the letter e, for as many turns as it has rounds."""

    def __init__(self, rounds=2):
        self.left = rounds

    def reset(self, seed, **columns):
        return "Write."

    def step(self, text):
        self.left -= 1
        return "More.", text.count("e") / max(1, len(text)), self.left == 0
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tools.py").write_text(TOOLS, "utf-8")
    Path("game.py").write_text(GAME, "utf-8")
    return tmp_path


def asked(folder: Path, name: str = "run", **stage: Any) -> dict[str, Any]:
    given = {"name": "grpo", "num_generations": 2, "max_new_tokens": 24, "rewards": [], **stage}
    return recipe(given, "prompts", folder / name, 8, logging_steps=1, save_steps=2, max_steps=6)


GAME_OPTION = "stage.environment={name: 'game.py:Count', max_turns: 3}"


def run(
    made: dict[str, Any], *overrides: str, stop_at: int | None = None, resume: bool = False
) -> tuple[Trial, list[Sampled]]:
    import signal

    trial, samples = Trial(None, [], Path(made["output"])), []

    def listen(event: Any) -> None:
        if isinstance(event, Sampled):
            samples.append(event)
        if isinstance(event, Logged):
            trial.logged.append(event)
            if event.step == stop_at:
                signal.raise_signal(signal.SIGTERM)

    try:
        trial.result = train(made, overrides=overrides, resume=resume, on_event=listen)
    except Stopped:
        assert stop_at is not None
    return trial, samples


def test_a_game_is_played_and_resumed_to_the_bit(folder: Path) -> None:
    """Stopped between two steps on the same episodes, too."""
    option = (GAME_OPTION,)
    whole, samples = run(asked(folder, "whole", num_iterations=2, epsilon=0.2), *option)
    assert all(sample.prompt.find("Write.") > 0 for sample in samples)
    assert {"rewards/environment", "completions/turns"} <= whole.logged[0].metrics.keys()
    stopped, _ = run(asked(folder, "parts", num_iterations=2, epsilon=0.2), *option, stop_at=3)
    resumed, _ = run(asked(folder, "parts", num_iterations=2, epsilon=0.2), *option, resume=True)
    check_resumed(whole, stopped, resumed)


@pytest.mark.long
def test_a_game_is_learned(folder: Path) -> None:
    made = asked(folder, num_generations=8, max_new_tokens=12)
    made["training"] |= {"max_steps": 25, "learning_rate": 1e-2, "save_steps": 25}
    trial, _ = run(made, GAME_OPTION)
    rewards = trial.metric("reward")
    assert sum(rewards[-3:]) > 2 * sum(rewards[:3])


def test_prompts_offer_the_tools(folder: Path) -> None:
    made = asked(folder, rewards=[{"name": "length", "target": 9}])
    made["family"] = {"name": "qwen", "device": "cpu", "dtype": "float32"}
    made["template"] = {"name": "qwen3"}
    made["training"] |= {"max_length": 512, "max_steps": 1}
    _, samples = run(made, "stage.environment=tools.py")
    assert '"name": "shout"' in samples[0].prompt
    assert "_hidden" not in samples[0].prompt


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"environment": "calculater"}, "no installed plugin gives the environment 'calculater'"),
        ({"environment": {"name": "calculator", "digits": 3}}, "digits: unknown key"),
        ({"environment": {"name": "calculator", "max_turns": 0}}, "max_turns of calculator is 0"),
        ({"environment": {"name": "calculator", "weight": "x"}}, "weight of calculator is 'x'"),
        ({"environment": {"name": "http", "url": "ftp://a"}}, "begins with http"),
        ({"environment": 3}, "stage.environment"),
        ({}, "expected at least one, or an environment"),
    ],
)
def test_a_wrong_section_is_refused(folder: Path, stage: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        resolve(asked(folder, **stage))


def test_a_file_is_code(folder: Path) -> None:
    """Only the command line names it."""
    for name in ("tools.py", "game.py:Count"):
        with pytest.raises(RecipeError, match="only the command line may name it"):
            resolve(asked(folder, environment={"name": name}))
    Path("empty.py").write_text("x = 1\n", "utf-8")
    Path("untyped.py").write_text("def f(a):\n    return a\n", "utf-8")
    Path("broken.py").write_text("1/0\n", "utf-8")
    there: Any = SimpleNamespace()
    for name, said in (
        ("empty.py", "defines no public function"),
        ("game.py", r"game.py defines no public function \(a class is named .*: game.py:Count\)"),
        ("untyped.py", "f: "),
        ("broken.py", "ZeroDivisionError"),
        ("none.py", "is no Python file"),
        ("game.py:Other", "has no class 'Other'"),
        ("tools.py:shout", "has no class 'shout'"),
    ):
        with pytest.raises(RecipeError, match=said):
            load({"name": name}, there, from_command_line=True)


def test_an_environment_without_any_reward(folder: Path) -> None:
    with pytest.raises(RunError, match="gives no number"):
        run(
            asked(folder, max_new_tokens=4), "stage.environment=tools.py", "training.max_length=512"
        )
