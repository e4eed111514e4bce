"""The kinds of plugins that tunewright-hf calls."""

from tunewright.kinds import Kind

KINDS = (
    Kind(
        "scheduler",
        "Learning-rate schedule.",
        ("build_scheduler",),
        required=True,
        default="cosine",
        shorthand="lr_scheduler_type",
        specs="tunewright_hf.hookspecs",
        base="tunewright.plugin:Scheduler",
    ),
    Kind(
        "reward",
        "Reward function: scores completions.",
        ("score",),
        section=False,
        specs="tunewright_hf.hookspecs",
        base="tunewright.plugin:Reward",
    ),
)
