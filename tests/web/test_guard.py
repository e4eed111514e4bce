"""Who gets in: the token, and no page of another site. Rows 35 of field/attacks.md and more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tunewright_web.start import Settings, guarded, opened
from web.conftest import TOKEN

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[TestClient]:
    """A browser that has no token yet."""
    made = opened(Settings(tmp_path / ".", hosts=("gpu.lab",)))
    made.port = 7860
    app = guarded(made, TOKEN, Settings(tmp_path, hosts=("gpu.lab",)))
    with TestClient(app, "http://127.0.0.1:7860", follow_redirects=False) as client:
        yield client


def test_first_visit(stranger: TestClient) -> None:
    """The printed address gives a cookie, and leaves the address bar."""
    answer = stranger.get("/runs/x", params={"token": TOKEN, "tab": "log"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/runs/x?tab=log"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"tunewright-7860={TOKEN};")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert stranger.get("/").status_code == 200


def test_redirect_stays_here(stranger: TestClient) -> None:
    for path in ("//evil.example/x", "/\\evil.example", "/%5cevil.example/"):
        answer = stranger.get(f"http://127.0.0.1:7860{path}?token={TOKEN}")
        assert answer.headers.get("location", "/x").startswith("/")
        assert answer.headers.get("location", "/x")[1:2] not in ("/", "\\")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Cookie": "tunewright-7860=wrong"},
        {"Cookie": f"tunewright-7861={TOKEN}"},  # of another server on this machine
        {"Authorization": "Bearer tök".encode("latin-1").decode("latin-1")},
    ],
)
def test_without_token(stranger: TestClient, headers: dict[str, str]) -> None:
    """401, which says what to do, and shows nothing of the workspace."""
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/", "/runs/secret", "/api/v1/runs", "/nothing", "/?token=wrong"):
        answer = stranger.get(path, headers=sent)
        assert answer.status_code == 401, path
        if path.startswith("/api/"):
            assert set(answer.json()) == {"error", "hint"}
        else:
            assert "tunewright web" in answer.text
            assert stranger.app.app.state.web.workspace.root.name not in answer.text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost:7860", 200),
        ("localhost.", 200),
        ("[::1]:7860", 200),
        ("10.0.0.7", 200),
        ("gpu.lab:80", 200),
        ("attacker.com", 421),
        ("127.0.0.1.attacker.com", 421),
        ("localhost.attacker.com:7860", 421),
        ("", 421),
        ("[::1", 421),
        ("127.0.0.1@attacker.com", 421),
    ],
)
def test_host(stranger: TestClient, host: str, status: int) -> None:
    """DNS rebinding: a page of another name reaches this server by that name."""
    answer = stranger.get("/settings", headers={**BEARER, "Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Origin": "http://127.0.0.1:7860"}, 303),
        ({"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "https://gpu.lab"}, 303),  # a proxy that speaks TLS and changes Host
        ({"Origin": "http://127.0.0.1:7861"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_sites_cannot_write(
    stranger: TestClient, headers: dict[str, str], status: int
) -> None:
    form = {"language": "zh"}
    answer = stranger.post("/settings", data=form, headers={**BEARER, **headers})
    assert answer.status_code == status


def test_headers(stranger: TestClient) -> None:
    """Every answer, of errors too, has the policy; browsers are let send Origin with forms."""
    for path in ("/", "/settings", "/nothing", "/static/app.css", "/api/v1/runs"):
        for sent in (BEARER, {}):
            headers = stranger.get(path, headers=sent).headers
            assert headers["content-security-policy"].startswith(
                "default-src 'none'; script-src 'self'"
            )
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["referrer-policy"] == "same-origin"
            assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("prefix", ["/proxy/7860/", "/proxy/7860", "proxy/7860"])
def test_prefix(tmp_path: Path, prefix: str) -> None:
    """Behind a proxy that cuts the path, and behind one that does not."""
    settings = Settings(tmp_path, root_path=prefix)
    app = guarded(opened(settings), TOKEN, settings)
    with TestClient(app, "http://127.0.0.1", headers=BEARER, follow_redirects=False) as client:
        for path in ("/settings", "/proxy/7860/settings"):
            text = client.get(path).text
            assert 'href="/proxy/7860/static/app.css?' in text
            assert 'action="/proxy/7860/settings"' in text
            assert 'href="/static' not in text
        assert client.get("/proxy/7860/static/app.css").status_code == 200
        sent = client.post("/settings", data={"theme": "dark"})
        assert sent.headers["location"] == "/proxy/7860/settings"
        first = client.get(f"/?token={TOKEN}", headers={"Authorization": ""})
        assert first.headers["location"] == "/proxy/7860/"
        assert "Path=/proxy/7860;" in first.headers["set-cookie"]


def test_settings_are_kept(stranger: TestClient) -> None:
    stranger.headers.update(BEARER)
    assert stranger.post("/settings", data={"language": "zh", "theme": "dark"}).status_code == 303
    text = stranger.get("/settings").text
    assert '<html lang="zh-CN" data-theme="dark">' in text
    assert stranger.post("/settings", data={"theme": "pink"}).status_code == 422


def test_forms_are_limited(stranger: TestClient) -> None:
    stranger.headers.update(BEARER)
    large = b"language=" + b"x" * (5 * 2**20)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert stranger.post("/settings", content=large, headers=kind).status_code == 413
    many = "&".join(f"f{n}=1" for n in range(6000)).encode()
    assert stranger.post("/settings", content=many, headers=kind).status_code == 400
    assert stranger.post("/settings", content=b"%ff=1", headers=kind).status_code in (303, 400)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert stranger.post("/settings", content=b"x", headers=kind).status_code == 415
