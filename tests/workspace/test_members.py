"""Every member is small, of the same version, listed everywhere, and says what it is."""

import re
import runpy
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from workspace.members import ROOT, Member, members

FIELDS = {
    "name",
    "version",
    "description",
    "requires-python",
    "license",
    "dependencies",
    "optional-dependencies",
    "scripts",
    "entry-points",
}
every_member = pytest.mark.parametrize("member", members(), ids=str)


def folders_with_pyproject() -> set[Path]:
    found = [
        *ROOT.glob("kernel"),
        *ROOT.glob("plugins/*"),
        *ROOT.glob("plugins/*/*"),
        *ROOT.glob("tests/*"),
    ]
    return {folder for folder in found if (folder / "pyproject.toml").is_file()}


def test_requirements_list_every_member() -> None:
    assert {member.folder for member in members()} == folders_with_pyproject()


def test_what_to_install_for_a_name_is_known() -> None:
    lists = runpy.run_path(str(ROOT / "scripts/make_lists.py"))
    shipped = tomllib.loads(lists["PLUGINS"].read_text("utf-8"))["known"]
    assert shipped == lists["known"](), "run scripts/dev.py fix"


@every_member
def test_pyproject_is_short_and_holds_no_tool_settings(member: Member) -> None:
    text = member.file.read_text("utf-8")
    data = tomllib.loads(text)
    names = sum(map(len, data["project"].get("entry-points", {}).values()))
    names += len(data["project"].get("optional-dependencies", {}))
    if member.is_bundle:
        names += len(data["project"]["dependencies"])
    assert len(text.splitlines()) - names <= 20
    assert set(data) - {"tool"} == {"project", "build-system"}
    assert set(data.get("tool", {}).get("tunewright", {"env": ""})) == {"env"}
    assert set(data.get("tool", {})) <= {"tunewright"}
    assert set(data["project"]) <= FIELDS
    assert (
        data["build-system"]["build-backend"] == "flit_core.buildapi"
    )  # scripts/build_members.py relies on it


@every_member
def test_version_is_the_kernels(member: Member) -> None:
    kernel = members()[0].project["version"]
    assert member.project["version"] == kernel


@every_member
def test_needs_the_kernel_of_this_minor_version_and_no_other_plugin(member: Member) -> None:
    ours = {
        re.match(r"[\w-]+", need)[0]: need
        for need in member.project["dependencies"]
        if "tunewright" in need
    }
    if member.project["name"] == "tunewright":
        assert ours == {}
        return
    major, minor, _ = member.project["version"].split(".")
    bounds = f">={major}.{minor},<{major}.{int(minor) + 1}"
    assert ours["tunewright"] == f"tunewright{bounds}"
    if not member.is_bundle:
        shared = {"tunewright-defaults"} if "stages" in member.folder.parts else set()
        # the kind's owner, with its base class
        shared |= {"tunewright-grpo"} if "environments" in member.folder.parts else set()
        assert set(ours) <= {"tunewright", "tunewright-hf"} | shared


@pytest.mark.parametrize("member", [m for m in members() if "stages" in m.folder.parts], ids=str)
def test_a_stage_brings_the_default_plugins(member: Member) -> None:
    """So that a family, a stage and an adapter are enough to train: docs/decisions/0017."""
    assert any(need.startswith("tunewright-defaults>") for need in member.project["dependencies"])


@every_member
def test_installed_distribution_says_what_it_is(member: Member) -> None:
    """`plugins list` shows this summary. Fails, too, where pyproject.toml changed and nobody
    installed it."""
    installed = metadata.metadata(member.project["name"])
    assert installed["Summary"] == member.project["description"]
    points = {
        (p.group, p.name, p.value)
        for p in metadata.distribution(member.project["name"]).entry_points
    }
    wanted = {
        (g, n, v)
        for g, found in member.project.get("entry-points", {}).items()
        for n, v in found.items()
    }
    assert {point for point in points if point[0] != "console_scripts"} == wanted


@every_member
def test_package_is_named_after_its_distribution(member: Member) -> None:
    assert (member.source / "__init__.py").is_file()
    assert [p.name for p in (member.folder / "src").iterdir() if p.name != "__pycache__"] == [
        member.package
    ]


def test_import_linter_knows_every_member() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    packages = {member.package for member in members()}
    assert set(settings["root_packages"]) == packages
    (layers,) = (
        contract["layers"] for contract in settings["contracts"] if contract["id"] == "layers"
    )
    assert {name.strip() for layer in layers for name in layer.split("|")} == packages


def test_constraints_pin_what_members_need() -> None:
    """Every third-party requirement of a member has its tested version, and that version is
    allowed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {
        canonicalize_name(n): v
        for n, v in (line.split("==") for line in lines if line[:1].isalpha())
    }
    needs = [Requirement(need) for m in members() if not m.env for need in m.needs]
    dev = (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()
    needs += [Requirement(line) for line in dev if line[:1].isalpha()]
    for need in needs:
        if not need.name.startswith("tunewright"):
            assert need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True), (
                need
            )
