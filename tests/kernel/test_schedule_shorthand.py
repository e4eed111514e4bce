"""Schedules: a shorthand for a section."""

import pytest

from kernel.resolve_setup import file, problems
from tunewright import check, run

__all__ = ["file"]

SCHEDULERS = """
from tunewright import Scheduler
class Bent(Scheduler):
    class Options(PluginOptions):
        low: float = 0.0
    @hookimpl
    def build_scheduler(self): ...
class Flat(Bent):
    needs_total_steps = False
"""


@pytest.fixture
def schedules(install):
    points = {"bent": "tw_schedulers:Bent", "flat": "tw_schedulers:Flat"}
    install("tw-schedulers", {"scheduler": points}, SCHEDULERS)


@pytest.mark.usefixtures("schedules")
def test_the_shorthand_names_the_plugin(file):
    found = check.resolve(file("learning_rate: 1e-4", "lr_scheduler_type: bent"))
    assert found.choices["scheduler"].entry.name == "bent"
    assert found.recipe.as_dict()["scheduler"] == {"name": "bent", "low": 0.0}
    again = check.resolve(found.recipe.as_dict(), ["scheduler=flat"])
    assert again.choices["scheduler"].entry.name == "flat"


@pytest.mark.usefixtures("schedules")
def test_shorthand_and_section_must_agree(file):
    section = ("output: out", "scheduler: {name: flat, low: 0.5}\noutput: out")
    assert check.resolve(file(*section)).options("scheduler").low == 0.5
    path = file("learning_rate: 1e-4", "lr_scheduler_type: bent", *section)
    assert problems(path) == [
        "r.yaml:11: training.lr_scheduler_type: is 'bent', and scheduler names 'flat' "
        "(leave out one of them)"
    ]
    for override, name in (("scheduler=bent", "bent"), ("training.lr_scheduler_type=flat", "flat")):
        assert check.resolve(path, [override]).choices["scheduler"].entry.name == name


@pytest.mark.usefixtures("schedules")
def test_an_override_of_an_option_keeps_the_schedule(file):
    path = file("learning_rate: 1e-4", "lr_scheduler_type: bent")
    found = check.resolve(path, ["scheduler.low=0.25"])
    assert found.recipe.as_dict()["scheduler"] == {"name": "bent", "low": 0.25}


@pytest.mark.usefixtures("schedules")
def test_an_unknown_schedule_is_reported_at_the_shorthand(file):
    (line,) = problems(file("learning_rate: 1e-4", "lr_scheduler_type: bemt"))
    assert line.startswith("r.yaml:11: training.lr_scheduler_type: no installed plugin gives")
    assert line.endswith("(did you mean 'bent'?)")


@pytest.mark.usefixtures("schedules")
def test_a_stage_has_its_own_schedule(file):
    found = check.resolve(
        file(
            "learning_rate: 1e-4",
            "lr_scheduler_type: bent",
            "rank: 2",
            "training: {lr_scheduler_type: flat}",
        )
    )
    made = run.Run(found)
    names = []
    for number in (0, 1, 0):
        made.begin_stage(number)
        names.append(made.plugin("scheduler").name)
    assert names == ["bent", "flat", "bent"]
    again = run.Run(check.resolve(found.recipe.as_dict()))
    again.begin_stage(1)
    assert again.plugin("scheduler").name == "flat"
