"""How a name finds its plugin: entry points are listed without an import; what a recipe names is
imported and called.

Each plugin in use gets a small PluginManager of its own, which holds it and the run's accelerators,
so that a call goes to exactly one implementation, inside every wrapper, and the order of
registration decides nothing else.
"""

import functools
import importlib.util
import tomllib
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from tunewright import hookspecs
from tunewright.errors import RecipeError, RunError, TunewrightError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunewright.plugin import Plugin

#: kind → the hooks that its plugins must implement; entry points stand in the group
#: `tunewright.<kind>`
KINDS: dict[str, tuple[str, ...]] = {
    "family": ("load_model",),
    "template": ("format_template",),
    "quantizer": ("prepare_load", "finish_load"),
    "adapter": ("apply_adapter",),
    "dataset": ("build_dataset",),
    "format": ("convert_rows",),
    "optimizer": ("build_optimizer",),
    "scheduler": ("build_scheduler",),
    "accelerator": (),
    "stage": ("train_stage",),
    "reward": ("score",),
    "logger": ("report",),
    "engine": ("generate",),
    "command": (),
}


@dataclass(frozen=True)
class Entry:
    """One name of one kind, as the metadata of its distribution gives it. Nothing is imported."""

    kind: str
    name: str
    value: str
    distribution: str
    version: str
    summary: str
    point: metadata.EntryPoint

    @property
    def qualified(self) -> str:
        return f"{self.distribution}:{self.name}"


@functools.cache
def _all_entry_points() -> Any:  # of Python 3.11: SelectableGroups, later: EntryPoints
    return metadata.entry_points()


def group(name: str) -> metadata.EntryPoints:
    """The entry points of the group `tunewright.<name>`."""
    return _all_entry_points().select(group=f"tunewright.{name}")  # type: ignore[no-any-return]


@functools.cache
def _described(dist: metadata.Distribution) -> tuple[str, str, str]:
    """Name, version and summary, read by hand: `dist.metadata` takes ten times as long, and listing
    reads all."""
    head = (dist.read_text("METADATA") or "").partition("\n\n")[0]
    fields = dict(line.partition(": ")[::2] for line in reversed(head.splitlines()))
    return fields["Name"], fields["Version"], fields.get("Summary", "")


def entries(kind: str) -> list[Entry]:
    """Every installed plugin of a kind, by name; a name that two distributions claim stands there
    twice."""
    found = []
    for point in group(kind):
        assert point.dist is not None  # only points that no distribution declares have none
        found.append(Entry(kind, point.name, point.value, *_described(point.dist), point))
    return sorted(found, key=lambda entry: (entry.name, entry.distribution))


@functools.cache
def shipped_table() -> dict[str, Any]:
    """plugins.toml: the default plugin of a kind, and which distribution brings a known name."""
    return tomllib.loads(resources.files("tunewright").joinpath("plugins.toml").read_text("utf-8"))


def find(kind: str, name: str, place: str = "") -> Entry:
    """The one plugin that `name`, or `distribution:name`, stands for. Raises RecipeError."""
    distribution, _, bare = name.rpartition(":")
    claims = [e for e in entries(kind) if e.name == bare and distribution in ("", e.distribution)]
    if len(claims) == 1:
        return claims[0]
    if claims:
        owners = " and ".join(e.distribution for e in claims)
        choice = " or ".join(repr(e.qualified) for e in claims)
        raise RecipeError(
            f"{kind} {bare!r} is claimed by {owners}", place=place, hint=f"write {choice}"
        )
    problem, known = (
        f"no installed plugin gives the {kind} {name!r}",
        [e.name for e in entries(kind)],
    )
    raise RecipeError(problem, place=place, hint=hint_for(kind, bare, known))


def hint_for(group: str, name: str, known: "Iterable[str]") -> str:
    """Which distribution brings a name that nobody here claims, or else the nearest that there
    is."""
    brings = shipped_table()["known"].get(group, {}).get(name)
    return f"pip install {brings}" if brings else did_you_mean(name, known)


def _check_version(entry: Entry, place: str) -> None:
    """Compare the plugin's `Requires-Dist: tunewright` with this kernel, before anything of it is
    imported."""
    from packaging.requirements import Requirement  # 30 ms that listing does without

    from tunewright import __version__

    dist = entry.point.dist
    for line in (dist.requires if dist else None) or []:
        need = Requirement(line)
        if need.name == "tunewright" and not need.specifier.contains(__version__, prereleases=True):
            who = f"{entry.kind} {entry.name!r} of {entry.distribution} {entry.version}"
            problem = f"{who} needs tunewright{need.specifier}, this is tunewright {__version__}"
            raise RecipeError(
                problem, place=place, hint=f"pip install --upgrade tunewright {entry.distribution}"
            )


def _data_file(entry: Entry) -> Path:
    """The file of a plugin that is only data: for `a.b.c` the file a/b/c.jinja, or
    a/b/c/template.jinja."""
    package, *inner = entry.value.split(".")
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, *inner)
        for candidate in (path.with_suffix(".jinja"), path / "template.jinja"):
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f"no file {'/'.join(inner)}.jinja in the package {package}")


def load(entry: Entry, place: str = "") -> Any:
    """Import a plugin's object: a Plugin class, or what a command gives. Raises RecipeError in one
    line."""
    from tunewright.plugin import Plugin

    _check_version(entry, place)
    try:
        if ":" in entry.value or entry.kind not in group("from_files").names:
            found = entry.point.load()
        else:
            found = group("from_files")[entry.kind].load()(_data_file(entry))
        if entry.kind != "command" and not (isinstance(found, type) and issubclass(found, Plugin)):
            raise TypeError(f"{entry.value} is not a subclass of tunewright.Plugin")
    except TunewrightError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises is its own fault
        raise RecipeError(
            f"{entry.kind} {entry.name!r} of {entry.distribution} {entry.version} is broken: "
            f"{type(error).__name__}: {' '.join(str(error).split())}",
            place=place,
            hint=f"pip install --upgrade {entry.distribution}, or take it out of the recipe",
        ) from error
    return found


class PluginCaller:
    """One plugin in use, inside the run's accelerators. The first accelerator is the outermost."""

    def __init__(
        self, entry: Entry, plugin: "Plugin", accelerators: "Sequence[Plugin]" = (), place: str = ""
    ) -> None:
        self.entry = entry
        self.plugin: Any = plugin  # what else it offers is its kind's matter
        self._manager = pluggy.PluginManager("tunewright")
        self._manager.add_hookspecs(hookspecs)
        try:
            self._manager.register(plugin)
            for accelerator in reversed(
                accelerators
            ):  # pluggy calls the last registered wrapper first
                self._manager.register(accelerator)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise RecipeError(
                (
                    f"{entry.kind} {entry.name!r} of {entry.distribution} is broken: "
                    f"{' '.join(str(error).split())}"
                ),
                place=place,
            ) from error
        for hook in KINDS[entry.kind]:
            if not any(impl.plugin is plugin for impl in self._hook(hook).get_hookimpls()):
                raise RecipeError(
                    (
                        f"{entry.kind} {entry.name!r} of {entry.distribution} has no "
                        f"implementation of {hook}"
                    ),
                    place=place,
                )
        for accelerator in accelerators:
            self._check_wraps(accelerator, place)

    def _hook(self, name: str) -> pluggy.HookCaller:
        caller: pluggy.HookCaller = getattr(self._manager.hook, name)
        return caller

    def _check_wraps(self, accelerator: "Plugin", place: str) -> None:
        for caller in self._manager.get_hookcallers(accelerator) or []:
            for impl in caller.get_hookimpls():
                if impl.plugin is accelerator and not impl.wrapper:
                    raise RecipeError(
                        (
                            f"accelerator {accelerator.name!r} "
                            f"replaces {caller.name}; it may only wrap it"
                        ),
                        place=place,
                        hint="@hookimpl(wrapper=True)",
                    )

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook of this plugin. Raises RunError where it gives None."""
        result = self._hook(hook)(**arguments)
        if result is None:
            raise RunError(f"{hook} of {self.entry.kind} {self.entry.name!r} gave nothing")
        return result

    def tell(self, **arguments: Any) -> None:
        """Call `report`, which gives nothing."""
        self._manager.hook.report(**arguments)
