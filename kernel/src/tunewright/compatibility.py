"""Versions that a plugin requires: of the kernel, and of the distributions of Tunewright beside it.

pip checks them at installation, but upgrades one distribution without those that require it. So
they are checked before a plugin is imported, whatever it would then raise.
"""

from typing import TYPE_CHECKING

from tunewright import index
from tunewright.errors import RecipeError

if TYPE_CHECKING:
    from tunewright.index import Point

KERNEL = "tunewright"


def check(point: "Point", who: str, place: str = "") -> None:
    """Raise RecipeError if what the plugin's distribution requires of ours is not installed, with
    the command that upgrades what is too old."""
    for name, specifier in required(point).items():
        version = versions().get(name)
        if version is None or fits(specifier, version):
            continue
        problem = f"{who} needs {name}{specifier}, this is {name} {version}"
        raise RecipeError(problem, place=place, hint=_remedy(point, name, specifier, version))


def required(point: "Point") -> dict[str, str]:
    """Distribution of ours → range of versions that the plugin's distribution requires."""
    found = {KERNEL: point.requires} if point.requires else {}
    for need in filter(None, point.siblings.split(";")):
        start = next(at for at, letter in enumerate(need) if letter in "<>=!~")
        found[need[:start]] = need[start:]
    return found


def versions() -> dict[str, str]:
    """Installed distributions that have entry points of ours, with their versions."""
    from tunewright import __version__

    return {**{point.distribution: point.version for point in index.points()}, KERNEL: __version__}


def fits(specifier: str, version: str) -> bool:
    """Whether a version is in a range. An invalid range contains none."""
    # takes 20 ms, and listing does not need it
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def outdated() -> list[str]:
    """Installed distributions that require an older version of ours than is installed."""
    found = {
        point.distribution
        for point in index.points()
        for name, specifier in required(point).items()
        if (version := versions().get(name))
        and not fits(specifier, version)
        and not _is_too_old(specifier, version)
    }
    return sorted(found)


def _is_too_old(specifier: str, version: str) -> bool:
    """Whether a version that is not in the range is below it."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return any(
            not each.contains(version, prereleases=True)
            for each in SpecifierSet(specifier)
            if each.operator in (">=", ">")
        )
    except InvalidSpecifier:
        return False


def _remedy(point: "Point", name: str, specifier: str, version: str) -> str:
    if _is_too_old(specifier, version):
        return f"pip install --upgrade {name} {point.distribution}"
    old = outdated()
    if len(old) > 1:
        return f"tunewright plugins install --upgrade: {len(old)} distributions are too old"
    other = f'pip install "{name}{specifier}"'
    return f"pip install --upgrade {point.distribution}; if there is no newer one: {other}"
