"""What comes with Tunewright may be used with it: the licences of the libraries that its members
need."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workspace.members import members

PERMISSIVE = {
    "0bsd",
    "apache",
    "apache software license",
    "apache software license 2.0",
    "apache-2.0",
    "apache 2.0",
    "apache 2.0 license",
    "bsd license",
    "bsd-2-clause",
    "bsd-3-clause",
    "3-clause bsd license",
    "bsl-1.0",
    "cc0-1.0",
    "cnri-python",
    "isc license (iscl)",
    "llvm-exception",
    "mit",
    "mit license",
    "mit-cmu",
    "psf-2.0",
    "python software foundation license",
    "unlicense",
    "zlib",
}

#: other licences that are fine here: the beginning of a distribution's name → why
ALLOWED = {
    "nvidia-": (
        "NVIDIA's libraries come with torch's wheels for Linux; its agreement lets them "
        "be used and passed on."
    ),
    "cuda-toolkit": "A list of NVIDIA's libraries, without a file of its own; the same agreement.",
    "hjson": "MIT or the Academic Free License, as one likes.",
    "tqdm": "MPL-2.0 asks for changed files of tqdm itself to be published; we change none.",
}


def needed() -> dict[str, metadata.Distribution]:
    """Every distribution that the members need here, directly or not, by name; members themselves
    left out."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [need for member in members() for need in member.needs]
    while waiting:
        need = Requirement(waiting.pop())
        name = canonicalize_name(need.name)
        if (
            name in found
            or name.startswith("tunewright")
            or (need.marker and not need.marker.evaluate({"extra": ""}))
        ):
            continue
        found[name] = metadata.distribution(name)
        waiting += found[name].requires or []
    return found


def licences(distribution: metadata.Distribution) -> set[str]:
    """What a distribution says of its licence, in small letters: parts of an expression,
    classifiers, or a name."""
    said = distribution.metadata
    if expression := said["License-Expression"]:
        return {part.strip(" ()").lower() for part in re.split(r"\b(?:AND|OR|WITH)\b", expression)}
    classifiers = [
        line for line in said.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    if classifiers:
        return {line.rpartition(" :: ")[2].lower() for line in classifiers}
    return {(said["License"] or "not said").splitlines()[0].lower()}


def test_licences_of_all_libraries_allow_their_use() -> None:
    found = {name: licences(distribution) for name, distribution in needed().items()}
    assert {"torch", "transformers", "numpy", "sacrebleu"} <= found.keys()
    others = {
        name: said - PERMISSIVE
        for name, said in found.items()
        if not name.startswith(tuple(ALLOWED))
    }
    assert {name: said for name, said in others.items() if said} == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT AND (GPL-3.0-only OR Zlib)", {"mit", "gpl-3.0-only", "zlib"}),
        ("License: whatever\nClassifier: License :: OSI Approved :: BSD License", {"bsd license"}),
        ("License: GPLv3", {"gplv3"}),
        ("Summary: nothing is said", {"not said"}),
    ],
)
def test_a_licence_is_read_wherever_it_is_said(tmp_path, fields: str, expected: set[str]) -> None:
    tmp_path.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{fields}\n"
    )
    assert licences(metadata.PathDistribution(tmp_path)) == expected
