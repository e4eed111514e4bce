"""Licences of the libraries that members need are compatible with Tunewright's."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workspace.members import members

PERMISSIVE = {
    "0bsd",
    "apache",
    "bsd",
    "apache software license",
    "apache software license 2.0",
    "apache-2.0",
    "apache 2",
    "apache 2.0",
    "apache 2.0 license",
    "bsd license",
    "bsd-2-clause",
    "bsd 2-clause license",
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
    "certifi": "MPL-2.0, as tqdm: a list of certificates, which we do not change.",
    "num2words": "LGPL: SmolVLM's processor in transformers imports it; we change nothing of it.",
    "hjson": "MIT or the Academic Free License, as one likes.",
    "tqdm": "MPL-2.0 asks for changed files of tqdm itself to be published; we change none.",
    # of lm-eval
    "chardet": "LGPL, as num2words: lm-eval's tables import it.",
    "word2number": "MIT; its metadata writes it otherwise.",
    # of the environment trackers
    "aim-ui": "From aim's repository, which is Apache-2.0; its metadata does not say so.",
    "cffi": "MIT-0: MIT without the duty to name the authors.",
    "dulwich": "Apache-2.0 or GPL, as one likes.",
    "everett": "MPL-2.0, as tqdm.",
    "huey": "MIT; its metadata does not say so.",
    "orjson": "MPL-2.0, as tqdm.",
    "restrictedpython": "ZPL-2.1, a permissive licence.",
    "simplejson": "MIT or the Academic Free License, as one likes.",
    "skops": "MIT; its metadata only says that it is approved.",
    # of the environment quantizers
    "torchao": "BSD-3-Clause; its metadata does not say so.",
}


def needed() -> dict[str, metadata.Distribution]:
    """Every distribution that the members need here, directly or not, by name; members themselves,
    extras that are not installed and libraries with an environment of their own left out."""
    found: dict[str, metadata.Distribution] = {}
    installed = {canonicalize_name(each.name) for each in metadata.distributions()}
    waiting = [need for m in members() if not m.env for need in m.project["dependencies"]]
    waiting += [
        need
        for member in members()
        for need in (member.needs if member.env else member.extras)
        if canonicalize_name(Requirement(need).name) in installed
    ]
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
    """A distribution's licence in lower case: parts of an expression, classifiers, or a name."""
    said = distribution.metadata
    if expression := said.get("License-Expression"):
        return {part.strip(" ()").lower() for part in re.split(r"\b(?:AND|OR|WITH)\b", expression)}
    classifiers = [
        line for line in said.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    if classifiers:
        return {line.rpartition(" :: ")[2].lower() for line in classifiers}
    return {(said.get("License") or "not said").splitlines()[0].lower()}


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
def test_a_licence_is_read_wherever_it_is_reported(
    tmp_path, fields: str, expected: set[str]
) -> None:
    tmp_path.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{fields}\n"
    )
    assert licences(metadata.PathDistribution(tmp_path)) == expected
