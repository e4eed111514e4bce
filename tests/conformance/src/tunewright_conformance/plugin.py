"""The pytest plugin: `pytest --plugin NAME` tests one plugin, `pytest --pyargs
tunewright_conformance` all.

pytest loads this file in every run where the distribution is installed, so it imports nothing
heavy. Fixtures stand in conftest.py, where only the suite sees them.
"""

from pathlib import Path

import pytest

from tunewright.errors import RecipeError
from tunewright_conformance.subjects import label, select, twins

FOLDER = Path(__file__).parent
GENERAL = (
    "hygiene"  # for every kind; the other files of tests are called like the kind that they test
)
KINDS = (
    "family",
    "template",
    "adapter",
    "optimizer",
    "dataset",
    "format",
    "stage",
    "logger",
    "engine",
    "command",
)

for _name in ("suite", GENERAL, *KINDS):
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds")
    if asked := config.getoption("plugin"):
        try:
            select(asked)
        except RecipeError as error:
            raise pytest.UsageError(str(error)) from None
        if config.args_source != pytest.Config.ArgsSource.ARGS:
            config.args = [str(FOLDER)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Take this package's tests, which are not called test_*.py, where an installed plugin needs
    them."""
    if file_path.parent != FOLDER or parent.session.isinitpath(
        file_path
    ):  # named by hand: pytest takes it itself
        return None
    wanted = {GENERAL, *(entry.kind for entry in select(parent.config.getoption("plugin")))}
    if file_path.stem in wanted.intersection({GENERAL, *KINDS}):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of the suite once for each plugin of its kind, and for each tiny twin of a
    family."""
    if metafunc.cls is None or Path(metafunc.module.__file__).parent != FOLDER:
        return
    entries = [
        e for e in select(metafunc.config.getoption("plugin")) if e.kind in metafunc.cls.kinds
    ]
    if "twin" in metafunc.fixturenames:
        pairs = [(entry, twin) for entry in entries for twin in twins(entry)]
        names = ["-".join(filter(None, (label(entry), twin))) for entry, twin in pairs]
        metafunc.parametrize(("entry", "twin"), pairs, ids=names, scope="session")
    else:
        metafunc.parametrize("entry", entries, ids=label, scope="session")
