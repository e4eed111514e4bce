"""The kind of plugins that `tunewright export` calls."""

from tunewright.kinds import Kind

KINDS = (
    Kind(
        "exporter",
        "Format that a trained model is exported to.",
        ("export_model",),
        section=False,
        specs="tunewright_export.hookspecs",
        base="tunewright.plugin:Exporter",
    ),
)
