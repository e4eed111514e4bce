"""Every page answers, in every language."""

import pytest
from starlette.testclient import TestClient

from tunewright_web.pages import NAVIGATION, all_pages, pages_of
from tunewright_web.words import LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", [entry.path for entry in NAVIGATION])
def test_pages(client: TestClient, path: str, language: str) -> None:
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}' in answer.text


def test_every_route_is_reached() -> None:
    """Pages are imported by the first part of an address, which the table has to know."""
    for page in all_pages():
        for route in page.routes:
            assert page in pages_of(route.path.split("/")[1], api=False), route.path
        for api in page.api:
            assert page in pages_of(api.path.split("/")[1], api=True), api.path
    assert not pages_of("api", api=False)
