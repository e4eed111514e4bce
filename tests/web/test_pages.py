"""Every page answers, in every language."""

import pytest
from starlette.testclient import TestClient

from tunewright_web.pages import PAGES
from tunewright_web.words import LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", [page.path for page in PAGES if page.label])
def test_pages(client: TestClient, path: str, language: str) -> None:
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}' in answer.text
