"""Optimizers, schedulers, rewards, quantizers and accelerators that do harm in one way each: the
suite names the way.

Their names begin with x_, so that the suite takes none of them where a test of another kind needs
one of this kind.
"""

import pytest

from conformance_tests import broken_optimizers, broken_schedulers, broken_wrappers
from conformance_tests.verdict import Subject, Verdict, judge

pytestmark = pytest.mark.slow

SUBJECTS: dict[str, tuple[Subject, set[str]]] = {
    **broken_optimizers.SUBJECTS,
    **broken_schedulers.SUBJECTS,
    **broken_wrappers.SUBJECTS,
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    subjects = {name: subject for name, (subject, _) in SUBJECTS.items()}
    return judge(tmp_path_factory.mktemp("site"), subjects, "-k", "not hygiene")


@pytest.mark.parametrize("name", SUBJECTS)
def test_what_is_wrong_is_named(verdict: Verdict, name: str) -> None:
    assert verdict.failed(name) == SUBJECTS[name][1]
