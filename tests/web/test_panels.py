"""Panels of third parties: on their page, as a tab of runs, and when they raise."""

from collections.abc import Mapping

import jinja2
import pytest
from markupsafe import Markup
from starlette.testclient import TestClient

from tunewright import registry
from tunewright_conformance.panel import Found
from tunewright_web import panels
from tunewright_web.drafts import Drafts
from tunewright_web.errors import WebError
from tunewright_web.panels import Context, Panel, Shown
from tunewright_web.run import Run
from tunewright_web.web import Web
from web.fakes import run_folder


class Good(Panel):
    """A page of its own."""

    label = "Good"

    def show(self, context: Context) -> Markup:
        return context.render("good.jinja", text="<b>", count=len(context.runs.all()))

    def act(self, context: Context, action: str, form: Mapping[str, str]) -> None:
        if action != "save":
            return super().act(context, action, form)
        if form.get("text") == "broken":
            raise KeyError("text")
        raise WebError("not today", status=409)


class OfRuns(Panel):
    """A tab of runs that are completed."""

    place, label = "run", "Of runs"

    def shows(self, run: Run) -> bool:
        return run.status == "completed"

    def show(self, context: Context) -> Markup:
        assert context.run is not None
        return Markup("<p>{}</p>").format(context.run.name)


class Broken(Panel):
    """A panel that raises."""

    place, label = "run", "Broken"

    def show(self, context: Context) -> Markup:
        raise ValueError("a defect <b>")


class Text(Panel):
    """A panel that gives text in place of HTML."""

    label = "Text"

    def show(self, context: Context) -> Markup:
        return "<script>alert(1)</script>"  # type: ignore[return-value]


class OfDrafts(Panel):
    """A box in New run."""

    place, label = "new", "Of drafts"

    def show(self, context: Context) -> Markup:
        assert context.recipe is not None and context.run is None
        return Markup("<p>{} {}</p>").format(context.recipe.get("model"), context.address)

    def act(self, context: Context, action: str, form: Mapping[str, str]) -> None:
        assert context.recipe is not None
        raise WebError(f"{action} {context.recipe['model']}", status=409)


@pytest.fixture
def some_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = jinja2.DictLoader({"good.jinja": "<p>{{ text }} {{ count }} {{ address }}</p>"})
    loaded = jinja2.Environment(loader=loader, autoescape=True)
    classes = {"good": Good, "of_runs": OfRuns, "broken": Broken, "text": Text, "drafts": OfDrafts}
    found = tuple(
        Shown(name, each.label, each(each.Options(), name), loaded=loaded)
        for name, each in classes.items()
    )
    found += (Shown("gone", "gone", None, "panel 'gone' is broken: ImportError: no module"),)
    monkeypatch.setattr("tunewright_web.pages.panel.installed", lambda: found)
    monkeypatch.setattr(panels, "installed", lambda: found)
    real = registry.entries
    monkeypatch.setattr(
        registry, "entries", lambda kind: real("command" if kind == "panel" else kind)
    )


@pytest.mark.usefixtures("some_panels")
def test_page(client: TestClient) -> None:
    text = client.get("/x/good").text
    assert "<p>&lt;b&gt; 0 /x/good</p>" in text
    assert '<a href="/x/good" aria-current="page">' in text
    assert client.get("/x/nothing").status_code == 404


@pytest.mark.usefixtures("some_panels")
def test_tab(client: TestClient, web: Web) -> None:
    run_folder(web.workspace.runs / "done")
    run_folder(web.workspace.runs / "stopped", "interrupted")
    assert "<p>done</p>" in client.get("/runs/done?tab=x-of_runs").text
    assert client.get("/runs/stopped?tab=x-of_runs").status_code == 404
    assert "Of runs" not in client.get("/runs/stopped").text


@pytest.mark.usefixtures("some_panels")
def test_box_of_new_run(client: TestClient, web: Web) -> None:
    made = Drafts(web.workspace.drafts).new({"model": "tiny"})
    assert f"<p>tiny /x/drafts/new/{made.id}</p>" in client.get(f"/new/{made.id}/plan").text
    assert "Of drafts" not in client.get(f"/new/{made.id}/model").text
    answer = client.post(f"/x/drafts/new/{made.id}/save")
    assert answer.status_code == 409 and "save tiny" in answer.text
    assert client.post("/x/drafts/new/0123456789abcdef/save").status_code == 404


@pytest.mark.usefixtures("some_panels")
def test_what_raises_is_a_box(client: TestClient, web: Web) -> None:
    """The page goes on, and other panels, too."""
    run_folder(web.workspace.runs / "done")
    answer = client.get("/runs/done?tab=x-broken")
    assert answer.status_code == 200
    assert "panel &#39;broken&#39; is broken: ValueError: a defect &lt;b&gt;" in answer.text
    assert "Of runs" in answer.text
    assert "ImportError: no module" in client.get("/x/gone").text
    text = client.get("/x/text").text
    assert "<script>alert" not in text
    assert "expected markupsafe.Markup" in text


@pytest.mark.usefixtures("some_panels")
def test_forms(client: TestClient) -> None:
    refused = client.post("/x/good/save", data={"text": "x"})
    assert refused.status_code == 409
    assert "not today" in refused.text
    assert client.post("/x/good/other").status_code == 404
    broken = client.post("/x/good/save", data={"text": "broken"})
    assert broken.status_code == 500
    assert "panel &#39;good&#39; is broken: KeyError" in broken.text
    assert client.post("/x/gone/save").status_code == 409


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("<script>alert(1)</script>", "inline script"),
        ("<p style='color: red'>", "attribute style"),
        ("<button onclick='x()'>", "attribute onclick"),
        ("<img src='https://cdn.example/x.png' alt=''>", "another host"),
        ("<form action='//evil.example/x'>", "another host"),
        ("<link rel=stylesheet href='https://fonts.example/x.css'>", "another host"),
        ("<iframe src='/x'></iframe>", "no <iframe>"),
        ("<img src='/x.png'>", "needs alt"),
        ("<input name=a id=a>", "needs a label"),
    ],
)
def test_conformance_says_what_is_blocked(html: str, said: str) -> None:
    found = Found()
    found.feed(html)
    found.close()
    assert any(said in problem for problem in found.problems), found.problems


def test_conformance_accepts() -> None:
    found = Found()
    found.feed("<label for=a>A</label><input id=a><label><input> B</label><input type=hidden>")
    found.feed("<a href='https://docs.example'>docs</a><script src='/x/a.js'></script>")
    found.close()
    assert not found.problems


def test_none_is_installed_here(client: TestClient) -> None:
    assert panels.installed() == ()
    assert client.get("/x/good").status_code == 404
