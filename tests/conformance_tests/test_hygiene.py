"""Each rule of hygiene: a plugin that breaks it fails the test that stands for the rule."""

import pytest

from conformance_tests.verdict import Subject, Verdict, judge

GOOD = '''
from tunewright import Plugin, PluginOptions, hookimpl


class Subject(Plugin):
    """A logger that listens to nothing."""

    class Options(PluginOptions):
        colour: str = "red"
        """the colour of nothing"""

    @hookimpl
    def report(self, event):
        pass
'''

BROKEN = {
    "torch": ("test_import_is_light", "import torch\n" + GOOD),
    "connection": (
        "test_import_is_light",
        (
            "import socket\nsocket.socket(socket.AF_INET, "
            "socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
        )
        + GOOD,
    ),
    "environment": (
        "test_import_is_light",
        "import os\nos.environ['SET_BY_AN_IMPORT'] = 'yes'\n" + GOOD,
    ),
    "docstring": ("test_class", GOOD.replace('"""A logger that listens to nothing."""', "")),
    "description": ("test_options_are_documented", GOOD.replace('"""the colour of nothing"""', "")),
    "example": ("test_options_are_documented", GOOD.replace('str = "red"', "str")),
    "extra": (
        "test_options_are_strict",
        GOOD.replace(
            "class Options(PluginOptions):", "class Options(PluginOptions, extra='ignore'):"
        ),
    ),
    "frozen": (
        "test_options_are_strict",
        GOOD.replace(
            "class Options(PluginOptions):", "class Options(PluginOptions, frozen=False):"
        ),
    ),
    "missing hook": ("test_hooks", GOOD.replace("def report", "def report_it")),
    "unknown argument": ("test_hooks", GOOD.replace("event)", "happening)")),
    "default value": ("test_hook_signatures", GOOD.replace("event)", "event, run=None)")),
    "unmarked hook": (
        "test_hook_signatures",
        GOOD + "\n    def open_engine(self, request):\n        return iter(())\n",
    ),
    "foreign hook": (
        "test_hooks",
        GOOD + "\n    @hookimpl\n    def open_engine(self, request):\n        return iter(())\n",
    ),
    "deviation of no test": (
        "test_deviations",
        GOOD + "\n    deviations = {'test_none': 'It has no such test.'}\n",
    ),
    "deviation without reason": (
        "test_deviations",
        GOOD + "\n    deviations = {'test_hooks': 'flaky'}\n",
    ),
}


ALSO = {  # what else must fail where the plugin cannot even be made or called
    "example": {"test_hooks", "test_hook_signatures"},
    "unknown argument": {"test_hook_signatures"},
    "deviation without reason": {"test_hooks"},
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    site = tmp_path_factory.mktemp("site")
    (site / "torch.py").touch()  # the real one takes seconds to import
    subjects = {package(name): Subject("logger", source) for name, (_, source) in BROKEN.items()}
    return judge(site, {"good": Subject("logger", GOOD), **subjects}, "-k", "hygiene")


def package(name: str) -> str:
    return name.replace(" ", "_")


def test_a_good_plugin_passes(verdict: Verdict) -> None:
    assert verdict.failed("good") == set()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_fails_its_test_and_no_other(verdict: Verdict, name: str) -> None:
    assert verdict.failed(package(name)) == {BROKEN[name][0]} | ALSO.get(name, set())
