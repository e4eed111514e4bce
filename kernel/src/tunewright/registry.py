"""Plugin registry: names are listed from metadata; plugins named in a recipe are imported.

Each plugin in use has its own small PluginManager, which holds it and the run's accelerators. A
call reaches one implementation, inside every wrapper, independent of the order of registration
otherwise.
"""

import functools
import importlib
import importlib.util
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import compatibility, index
from tunewright.errors import RecipeError, RunError, TunewrightError, did_you_mean
from tunewright.index import Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tunewright.kinds import Kind
    from tunewright.plugin import Plugin


@dataclass(frozen=True)
class Entry:
    """One plugin, from the metadata of its distribution. Nothing is imported."""

    kind: str
    point: Point

    @property
    def name(self) -> str:
        return self.point.name

    @property
    def value(self) -> str:
        return self.point.value

    @property
    def distribution(self) -> str:
        return self.point.distribution

    @property
    def version(self) -> str:
        return self.point.version

    @property
    def summary(self) -> str:
        return self.point.summary

    @property
    def qualified(self) -> str:
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.distribution} {self.version}"


def group(name: str) -> list[Point]:
    """Entry points of the group `tunewright.<name>`."""
    return [point for point in index.points() if point.group == name]


def entries(kind: str) -> list[Entry]:
    """All installed plugins of a kind, by name. A name used by two distributions appears twice."""
    found = [Entry(kind, point) for point in group(kind)]
    return sorted(found, key=lambda entry: (entry.name, entry.distribution))


@functools.cache
def shipped_table() -> dict[str, Any]:
    """plugins.toml: default plugins of kinds, and which distribution provides a known name."""
    return tomllib.loads(resources.files("tunewright").joinpath("plugins.toml").read_text("utf-8"))


def find(kind: str, name: str, place: str = "") -> Entry:
    """Find the plugin called `name`, or `distribution:name`. Raises RecipeError."""
    distribution, _, bare = name.rpartition(":")
    installed = entries(kind)
    claims = [e for e in installed if e.name == bare and distribution in ("", e.distribution)]
    if len(claims) == 1:
        return claims[0]
    if claims:
        owners = " and ".join(e.distribution for e in claims)
        choice = " or ".join(repr(e.qualified) for e in claims)
        problem = f"{kind} {bare!r} is claimed by {owners}"
        raise RecipeError(problem, place=place, hint=f"write {choice}")
    problem = f"no installed plugin gives the {kind} {name!r:.80}"
    raise RecipeError(problem, place=place, hint=hint_for(kind, bare, [e.name for e in installed]))


def hint_for(group: str, name: str, known: "Iterable[str]") -> str:
    """Command that installs a known name, else the closest installed name."""
    brings = shipped_table()["known"].get(group, {}).get(name)
    return f"pip install {brings}" if brings else did_you_mean(name, known)


def _data_file(entry: Entry) -> Path:
    """File of a plugin without code: for `a.b.c`, a/b/c.jinja or a/b/c/template.jinja."""
    package, *inner = entry.value.split(".")
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, *inner)
        for candidate in (path.with_suffix(".jinja"), path / "template.jinja"):
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f"no file {'/'.join(inner)}.jinja in the package {package}")


def load(entry: Entry, place: str = "") -> Any:
    """Import a plugin class, or a command's object. Raises a one-line RecipeError."""
    compatibility.check(entry.point, str(entry), place)
    try:
        from_file = [point for point in group("from_files") if point.name == entry.kind]
        if ":" in entry.value or not from_file:
            found = entry.point.load()
        else:
            found = from_file[0].load()(_data_file(entry))
        if entry.kind != "command":  # a command needs neither this module nor pydantic
            from tunewright.plugin import Plugin

            if not (isinstance(found, type) and issubclass(found, Plugin)):
                raise TypeError(f"{entry.value} is not a subclass of tunewright.Plugin")
    except TunewrightError:
        raise
    except (Exception, SystemExit) as error:  # a plugin's module may raise anything
        hint = f"pip install --upgrade {entry.distribution}, or take it out of the recipe"
        raise RecipeError(brokenness(entry, error), place=place, hint=hint) from error
    return found


def brokenness(entry: Entry, error: BaseException) -> str:
    """Message about a plugin that raised an exception other than a TunewrightError."""
    return f"{entry} is broken: {type(error).__name__}: {' '.join(str(error).split())[:500]}"


class PluginCaller:
    """One plugin in use, inside the run's accelerators. The first accelerator is the outermost."""

    def __init__(
        self,
        entry: Entry,
        plugin: "Plugin",
        accelerators: "Sequence[Plugin]" = (),
        place: str = "",
    ) -> None:
        import pluggy

        from tunewright.kinds import kind_of

        self.entry = entry
        self.plugin: Any = plugin
        self._manager = pluggy.PluginManager("tunewright")
        kind = kind_of(entry.kind)
        for specs in _specs():
            self._manager.add_hookspecs(specs)
        for hook in kind.hooks:
            if not hasattr(self._manager.hook, hook):
                problem = f"the kind {kind.name!r} is broken: {kind.specs} specifies no {hook}"
                raise RecipeError(problem, place=place)
        try:
            self._manager.register(plugin)
            for accelerator in reversed(accelerators):  # pluggy calls the last wrapper first
                self._manager.register(accelerator)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            problem = f"{_who(entry)} is broken: {' '.join(str(error).split())}"
            raise RecipeError(problem, place=place) from error
        self._check_hooks(kind, place)
        for accelerator in accelerators:
            self._check_wraps(accelerator, place)

    def _check_hooks(self, kind: "Kind", place: str) -> None:
        for hook in kind.hooks:
            implementations = getattr(self._manager.hook, hook).get_hookimpls()
            if not any(impl.plugin is self.plugin for impl in implementations):
                problem = f"{_who(self.entry)} has no implementation of {hook}"
                raise RecipeError(problem, place=place)

    def _check_wraps(self, accelerator: "Plugin", place: str) -> None:
        for caller in self._manager.get_hookcallers(accelerator) or []:
            for impl in caller.get_hookimpls():
                if impl.plugin is accelerator and not impl.wrapper:
                    problem = (
                        f"accelerator {accelerator.name!r} replaces {caller.name}; "
                        "it may only wrap it"
                    )
                    raise RecipeError(problem, place=place, hint="@hookimpl(wrapper=True)")

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook of this plugin. Raises RunError if it returns None."""
        result = getattr(self._manager.hook, hook)(**arguments)
        if result is None:
            raise RunError(f"{hook} of {self.entry.kind} {self.entry.name!r} gave nothing")
        return result

    def tell(self, **arguments: Any) -> None:
        """Call `report`, which returns nothing."""
        self._manager.hook.report(**arguments)


def _who(entry: Entry) -> str:
    return f"{entry.kind} {entry.name!r} of {entry.distribution}"


@functools.cache
def _specs() -> list[Any]:
    """Modules with the hook specifications of all kinds: an accelerator may wrap any hook.

    Those of broken kinds are left out: the error appears when the kind is used.
    """
    from tunewright.kinds import kinds

    found: dict[str, Any] = {}
    hooks: set[str] = set()
    for name in dict.fromkeys(kind.specs for kind in kinds().values()):
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: S112 - the kind's plugins say so
            continue
        own = {hook for hook in dir(module) if hasattr(getattr(module, hook), "tunewright_spec")}
        if own and not own & hooks:  # one name, one owner
            hooks |= own
            found[name] = module
    return list(found.values())
