"""The kind of plugins that `grpo` generates episodes with."""

from tunewright.kinds import Kind

KINDS = (
    Kind(
        "environment",
        "Environment of multi-turn episodes: answers what the model generates.",
        ("reset", "step"),
        section=False,
        specs="tunewright_grpo.hookspecs",
        base="tunewright_grpo.environment:Environment",
    ),
)
