"""A training with an optimizer that the test builds."""

from training_setup import a_run, loaded, model, rows, run_training

from tunewright import events, hookimpl
from tunewright.plugin import Optimizer


class Built(Optimizer):
    """An optimizer plugin that builds what it was given."""

    def __init__(self, build, in_backward=False) -> None:
        super().__init__(None, "built")
        self.build, self.steps_in_backward = build, in_backward

    @hookimpl
    def build_optimizer(self, request):
        return self.build([each for _, each in request.parameters], request.learning_rate)


def run_with(folder, build, in_backward=False, **facts):
    """A run with another optimizer."""
    return a_run(folder, plugins={"optimizer": Built(build, in_backward)}, **facts)


def go(folder, build, made=None, stop=lambda run: False, ranks=(0, 1), **settings):
    """(run, result, model), trained by the optimizer that `build` makes of parameters and rate.
    ranks: this one, and their number."""
    facts = {"rank": ranks[0], "world_size": ranks[1]}
    run, made = run_with(folder, build, **facts), made or loaded(model(dropout=0.2))
    _, result = run_training(
        folder, made, settings.pop("data", rows(30)), run=run, stop=stop, **settings
    )
    return run, result, made.model


def messages(run):
    return [event.message for event in run.events if isinstance(event, events.Notice)]
