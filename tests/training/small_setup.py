"""The small model is trained."""

import pytest
from training_setup import loaded, model, run_training


def weights(model):
    return {
        name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad
    }


@pytest.fixture
def small(tmp_path):
    """Train the small model with these settings: (run, result, weights)."""

    def go(made=None, data=None, name="run", **settings):
        made = made or loaded(model())
        run, result = run_training(tmp_path / name, made, data, **settings)
        return run, result, weights(made.model)

    return go
