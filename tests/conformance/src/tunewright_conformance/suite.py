"""Base class of the test classes of all kinds."""

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, ClassVar

import pytest
from packaging.requirements import Requirement

from tunewright.registry import Entry, load
from tunewright_conformance.imports import Imports
from tunewright_conformance.parameters import Parameters


class Suite:
    """The tests of one kind. Every test takes `entry`, the plugin under test, as its metadata names
    it, and most take `options`, those that are tried.

    A plugin's conformance.toml sets the attributes below for it. In tests of its own a plugin may
    also subclass a class of the suite, set `plugin`, the attributes and fixtures:

        from tunewright_conformance import quantizer

        class TestGptq(quantizer.TestQuantizer):
            plugin = "gptq"
            options = ({"bits": 2}, {"bits": 8})

    A plugin cannot override or drop a test. If it does not pass one, it declares the reason:
    `deviations = {"test_name": "A full sentence."}`. The test must then fail, or the declaration is
    outdated.
    """

    kinds: ClassVar[tuple[str, ...]]
    #: name of the plugin, of a subclass outside the suite
    plugin: ClassVar[str] = ""
    #: options to try, each in turn; an empty one is the defaults
    options: ClassVar[Sequence[Mapping[str, Any]]] = ({},)
    #: whether its tests take more than five seconds each; such are left out of a quick selection
    slow: bool = False
    #: whether it needs an NVIDIA GPU; without one its tests are skipped, but those of `anywhere`
    needs_gpu: bool = False
    #: packages that must be importable; otherwise the same
    packages: Sequence[str] = ()
    #: what else it needs which the suite cannot give, such as a server: reason of the skip. A
    #: subclass that gives it sets ""
    needs: str = ""
    #: tests that need neither GPU nor packages
    anywhere: ClassVar[frozenset[str]] = frozenset()

    #: whether its tests let a plugin work, for which it needs the libraries of its distribution
    works: ClassVar[bool] = True

    @pytest.fixture(autouse=True)
    def _expect_deviation(self, entry: Entry, request: pytest.FixtureRequest) -> None:
        if not self.plugin:  # the fixture is the suite's own
            imports: Imports = request.getfixturevalue("imports")
            if error := imports[entry.kind, entry.qualified].error:
                pytest.fail(error, pytrace=False)
        if self.works and (library := missing_library(entry)):
            pytest.skip(f"{entry.distribution} needs {library}, which is not installed")
        if reason := deviations(entry).get(request.node.originalname):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def further_options(self) -> dict[str, Any]:
        """Options besides those that are tried, for subclasses: such as a server's address."""
        return {}

    @pytest.fixture(name="options")
    def _options(
        self, request: pytest.FixtureRequest, further_options: dict[str, Any]
    ) -> dict[str, Any]:
        """The options that are tried. Skips the test where it cannot run here."""
        found: Parameters = request.param
        for name, value in found.attributes.items():
            setattr(self, name, value)
        if request.node.originalname not in self.anywhere:
            self._skip_where_it_cannot_run()
        return found.options | further_options

    def _skip_where_it_cannot_run(self) -> None:
        if self.needs:
            pytest.skip(self.needs)
        for package in self.packages:
            if find_spec(package) is None:
                pytest.skip(f"needs the package {package}")
        if self.needs_gpu:
            import torch

            if not torch.cuda.is_available():
                pytest.skip("needs an NVIDIA GPU")


def deviations(entry: Entry) -> dict[str, str]:
    """Deviations that a plugin declares. A command is a function and cannot declare any."""
    declared: dict[str, str] = {} if entry.kind == "command" else load(entry).deviations
    return declared


def missing_library(entry: Entry) -> str:
    """A requirement of the plugin's distribution that is not installed, "" where there is none."""
    for line in metadata.requires(entry.distribution) or []:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            try:
                metadata.version(need.name)
            except metadata.PackageNotFoundError:
                return need.name
    return ""


def is_sentence(text: str) -> bool:
    """Whether a reason looks like a sentence: four words, a capital first, a full stop last."""
    return bool(re.fullmatch(r"[A-Z`'\"].*[.!]", text, re.DOTALL)) and len(text.split()) >= 4
