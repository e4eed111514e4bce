"""Kinds of plugins, as data.

A kind is declared once, by the distribution whose code calls its plugins, through the entry-point
group `tunewright.kind`. Recipe sections, schema, listings, defaults, scaffolds and the reference
follow from the declaration, and a third party can add a kind:

    [project.entry-points."tunewright.kind"]
    mine = "my_package.kinds:KINDS"     # a tuple of Kind
"""

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright import registry
from tunewright.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Kind:
    """One kind of plugin. The group of its entry points is `tunewright.<name>`."""

    name: str
    summary: str = ""  # for users: what a plugin of this kind does
    hooks: tuple[str, ...] = ()  # hooks that its plugins must implement
    many: bool = False  # a recipe takes a list of them, in a section called `<name>s`
    section: bool = True  # whether recipes have a section for it
    required: bool = False  # whether a recipe always has one: without a section, the default
    default: str | tuple[str, ...] = ()  # plugin name, names where many; plugins.toml may give it
    shorthand: str = ""  # field of `training` that may name the plugin instead of a section
    specs: str = "tunewright.hookspecs"  # module with the hook specifications
    base: str = "tunewright.plugin:Plugin"  # class that its plugins derive from
    optional: tuple[str, ...] = ()  # hooks that its plugins may implement

    @property
    def key(self) -> str:
        """Its section in a recipe."""
        return f"{self.name}s" if self.many else self.name

    @property
    def defaults(self) -> tuple[str, ...]:
        """Names of the plugins that a recipe has by default."""
        found = self.default or registry.shipped_table()["defaults"].get(self.key, ())
        return (found,) if isinstance(found, str) else tuple(found)


_BASE = "tunewright.plugin:"
#: the kernel's own kinds, in the order of recipes
KINDS = (
    Kind(
        "family", "Model family: loads model and tokenizer.", ("load_model",), base=f"{_BASE}Family"
    ),
    Kind(
        "template",
        "Chat template: renders conversations.",
        ("format_template",),
        base=f"{_BASE}Template",
    ),
    Kind(
        "quantizer",
        "Quantizes weights as they are loaded.",
        ("prepare_load", "finish_load"),
        base=f"{_BASE}Quantizer",
    ),
    Kind(
        "adapter",
        "Chooses which parameters are trained.",
        ("apply_adapter",),
        required=True,
        base=f"{_BASE}Adapter",
        optional=("prepare_adapter",),
    ),
    Kind(
        "dataset",
        "Reads, converts, renders and tokenises data.",
        ("build_dataset",),
        required=True,
        base=f"{_BASE}Dataset",
    ),
    Kind(
        "format",
        "Converts records of a file format to rows.",
        ("convert_rows",),
        section=False,
        base=f"{_BASE}Format",
    ),
    Kind("optimizer", "Optimizer.", ("build_optimizer",), required=True, base=f"{_BASE}Optimizer"),
    Kind(
        "accelerator",
        "Wraps hooks: the same step, faster or in less memory.",
        many=True,
        base=f"{_BASE}Accelerator",
    ),
    Kind("stage", "Training stage.", ("train_stage",), section=False, base=f"{_BASE}Stage"),
    Kind(
        "logger",
        "Receives the run's events.",
        ("report",),
        many=True,
        required=True,
        base=f"{_BASE}Logger",
    ),
    Kind("engine", "Inference engine.", ("open_engine",), required=True, base=f"{_BASE}Engine"),
    Kind(
        "launcher",
        "Starts the processes of a run, on one or many hosts. A recipe names it in `launch`.",
        ("launch",),
        section=False,
        base="tunewright.launch:Launcher",
    ),
    Kind("command", "Verb of the command line.", section=False, base=""),
)


#: recipe sections and fields other than those of kinds
_RESERVED = frozenset(
    ("model", "data", "eval_data", "stages", "training", "launch", "output", "mirror", "data_root")
)
_NAME = re.compile(r"(?!model_)[a-z][a-z0-9_]*")


@functools.cache
def kinds() -> "Mapping[str, Kind]":
    """All kinds by name: the kernel's, then those of installed distributions.

    Invalid declarations are left out: `broken` has the reasons.
    """
    broken.clear()
    found = {kind.name: kind for kind in KINDS}
    for point in registry.group("kind"):
        try:
            declared = list(point.load())
        except (Exception, SystemExit) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            broken[point.name] = f"{point.distribution}: {said}"
            continue
        for kind in declared:
            if kind in found.values():  # the kernel's own, or an identical second declaration
                continue
            if reason := _unfit(kind, found):
                name = getattr(kind, "name", point.name)
                broken[str(name)] = f"{point.distribution}: {reason}"
            else:
                found[kind.name] = kind
    return found


def _unfit(kind: object, found: "Mapping[str, Kind]") -> str:
    """Reason why a declaration is invalid; empty if it is valid."""
    if not isinstance(kind, Kind):
        return f"declares {type(kind).__name__}, expected tunewright.kinds.Kind"
    if not isinstance(kind.name, str) or not _NAME.fullmatch(kind.name):
        return "a kind's name is lower-case letters, digits and _"
    if kind.name in found or kind.key in {other.key for other in found.values()}:
        return "there is already a kind with this name"
    if kind.section and kind.key in _RESERVED:
        return f"recipes have a section {kind.key!r} already"
    return ""


#: invalid declarations: name → reason
broken: dict[str, str] = {}


def kind_of(name: str) -> Kind:
    """The kind with this name. Raises RecipeError."""
    if name not in kinds():
        raise RecipeError(f"there is no kind of plugin {name!r}", hint=did_you_mean(name, kinds()))
    return kinds()[name]


def sections() -> "Mapping[str, Kind]":
    """Kinds that have a section in recipes, by the section's key."""
    return {kind.key: kind for kind in kinds().values() if kind.section}
