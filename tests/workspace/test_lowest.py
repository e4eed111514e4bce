"""Lower bounds of libraries: every requirement has one, and they are what `dev.py lowest` tests."""

import importlib.metadata

import pytest
from packaging.requirements import Requirement

from workspace.members import members, script


def test_every_requirement_has_a_lower_bound() -> None:
    found = script("lowest").needs()
    assert any(need.startswith("transformers") for need in found)
    for need in map(Requirement, found):
        assert {each.operator for each in need.specifier} & {">=", "=="}, need


def test_requirements_of_environments_are_left_out() -> None:
    """Their libraries do not go together with the others."""
    alone = {Requirement(need).name for m in members() if m.env for need in m.needs}
    shared = {Requirement(need).name for m in members() if not m.env for need in m.needs}
    found = {Requirement(need).name for need in script("lowest").needs()}
    assert alone - shared
    assert not found & (alone - shared)


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("pluggy", importlib.metadata.version("pluggy"), False),
        ("pluggy", "0.1", True),
        ("not-installed", "1.0", True),
        ("torch", "0.1", False),  # gigabytes
        ("nvidia-cublas", "0.1", False),
    ],
)
def test_other_versions_than_the_installed_ones(name: str, version: str, expected: bool) -> None:
    assert script("lowest").differs(name, version) == expected
