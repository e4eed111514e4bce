"""The tests that every Tunewright plugin has to pass."""


def check(names: list[str]) -> int:
    """Test the installed plugins that `names` gives, as NAME or KIND:NAME; all where it is empty.

    Prints pytest's short report and returns its exit code: 0 where all pass.
    """
    import pytest

    wanted = [f"--plugin={name}" for name in names]
    return int(pytest.main([*wanted, "--pyargs", __name__, "-q", "--no-header", "-p", "no:cacheprovider"]))
