"""The pytest plugin: `pytest --plugin NAME` tests one plugin, `pytest --pyargs
tunewright_conformance` all.

pytest loads this file in every run if the distribution is installed, so it imports nothing heavy.
Fixtures are in conftest.py, which only the suite loads.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tunewright.errors import RecipeError
from tunewright.registry import Entry, find
from tunewright_conformance.subjects import label, select, twins

if TYPE_CHECKING:
    from tunewright_conformance.parameters import Parameters
    from tunewright_conformance.suite import Suite

FOLDER = Path(__file__).parent
GENERAL = "hygiene"  # for every kind; the other test files are named after their kind
KINDS = (
    "family",
    "template",
    "quantizer",
    "adapter",
    "optimizer",
    "scheduler",
    "accelerator",
    "dataset",
    "format",
    "stage",
    "reward",
    "environment",
    "logger",
    "engine",
    "launcher",
    "exporter",
    "evaluator",
    "panel",
    "command",
)
#: further test files → the kind that they are for
FURTHER = {"family_media": "family"}

for _name in ("suite", GENERAL, *KINDS, *FURTHER):
    pytest.register_assert_rewrite(f"tunewright_conformance.{_name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("tunewright").addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="NAME",
        help=(
            "run the conformance tests on this Tunewright plugin (NAME or KIND:NAME; may "
            "be repeated)"
        ),
    )
    parser.getgroup("tunewright").addoption(
        "--conformance-report",
        default="",
        metavar="FILE.json",
        help="write the results with versions and SHA-256, as JSON and as Markdown beside it",
    )


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("conformance_report"):
        from tunewright_conformance.report import Reporter

        config.pluginmanager.register(Reporter(Path(path), config.getoption("plugin")))
    config.addinivalue_line("markers", "slow: takes more than five seconds")
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU")
    if asked := config.getoption("plugin"):
        try:
            select(asked)
        except RecipeError as error:
            raise pytest.UsageError(str(error)) from None
        if config.args_source != pytest.Config.ArgsSource.ARGS:
            config.args = [str(FOLDER)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect this package's tests, which are not named test_*.py, if an installed plugin needs
    them."""
    # named on the command line: pytest collects it itself
    if file_path.parent != FOLDER or parent.session.isinitpath(file_path):
        return None
    wanted = {GENERAL, *(entry.kind for entry in select(parent.config.getoption("plugin")))}
    kind = FURTHER.get(file_path.stem, file_path.stem)
    if kind in wanted.intersection({GENERAL, *KINDS}):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def suites_of(kind: str) -> "list[type[Suite]]":
    """The test classes that the plugins of a kind have to pass."""
    from tunewright_conformance.suite import Suite

    found = []
    further = [file for file, of in FURTHER.items() if of == kind]
    for file in (GENERAL, *({kind} & set(KINDS)), *further):
        for each in vars(import_module(f"tunewright_conformance.{file}")).values():
            if isinstance(each, type) and issubclass(each, Suite) and each is not Suite:
                found += [each] if kind in each.kinds else []
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of the suite once for each plugin of its kind, for each of the options that are
    tried of it, and for each tiny twin of a family."""
    from tunewright_conformance.parameters import parameters
    from tunewright_conformance.suite import Suite

    suite: type[Suite] | None = metafunc.cls
    if suite is None or not issubclass(suite, Suite):
        return
    entries = _subjects(metafunc, suite)
    if "twin" in metafunc.fixturenames:
        pairs = [(entry, twin) for entry in entries for twin in twins(entry)]
        names = ["-".join(filter(None, (label(entry), twin))) for entry, twin in pairs]
        metafunc.parametrize(("entry", "twin"), pairs, ids=names, scope="session")
    elif "options" in metafunc.fixturenames:
        anywhere = metafunc.function.__name__ in suite.anywhere
        tried = [
            _parameter(entry, each, suite, anywhere)
            for entry in entries
            for each in parameters(entry, suite)
        ]
        metafunc.parametrize(("entry", "options"), tried, indirect=["options"])
    else:
        metafunc.parametrize("entry", entries, ids=label, scope="session")


def _parameter(entry: Entry, tried: "Parameters", suite: "type[Suite]", anywhere: bool) -> Any:
    """A plugin with one set of options, as pytest's parameter."""
    marks = []
    for mark, attribute in ((pytest.mark.gpu, "needs_gpu"), (pytest.mark.slow, "slow")):
        if tried.attributes.get(attribute, getattr(suite, attribute)) and not anywhere:
            marks.append(mark)
    name = "-".join(filter(None, (label(entry), str(tried))))
    return pytest.param(entry, tried, id=name, marks=marks)


def _subjects(metafunc: pytest.Metafunc, suite: "type[Suite]") -> list[Entry]:
    """The plugins that a test class is run on. Outside the suite it names its own."""
    if suite.plugin:
        return [find(suite.kinds[0], suite.plugin)]
    if Path(metafunc.module.__file__ or "").parent != FOLDER:  # the suite's own class, imported
        return []
    asked = metafunc.config.getoption("plugin")
    return [entry for entry in select(asked) if entry.kind in suite.kinds]
