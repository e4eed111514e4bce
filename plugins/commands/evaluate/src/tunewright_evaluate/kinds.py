"""The kind of plugins that `tunewright evaluate` calls."""

from tunewright.kinds import Kind

KINDS = (
    Kind(
        "evaluator",
        "Measures a trained model.",
        ("evaluate_model",),
        section=False,
        specs="tunewright_evaluate.hookspecs",
        base="tunewright.plugin:Evaluator",
    ),
)
