"""Messages on the troubleshooting page are those of the catalogue, which is made from the code."""

import html
import re

import pytest

from docs.pages import DOCS

PAGE = (DOCS / "how-to/troubleshooting.md").read_text("utf-8")
CATALOGUE = html.unescape((DOCS / "reference/errors.md").read_text("utf-8"))
MESSAGES = re.findall(r"^\| `(.+?)` \| ", PAGE, re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_that_the_code_gives(message: str) -> None:
    assert message in CATALOGUE


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 25
