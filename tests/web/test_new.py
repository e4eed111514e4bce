"""New run: drafts, the wizard's steps without JavaScript, and the API of recipes.

Checks of the report are named by their number.
"""

import re
from dataclasses import replace

import pytest

from tunewright import yamlio
from tunewright_web.drafts import Drafts, NoDraft
from tunewright_web.form import Field, Form, Plugin, Section, installed
from tunewright_web.wizard import Shown, opened, step_of
from web.new_setup import RECIPE, draft, rows, texts

__all__ = ["draft", "rows"]


# ---- drafts --------------------------------------------------------------------------------------


def test_a_draft_survives_server_and_browser(web, client):  # check 14
    made = client.post("/new", data={"do": "blank"})
    address = made.headers["location"].rpartition("/")[0]
    typed = {"model": "tiny", "training.learning_rate": "1,000", "do": "save"}
    assert client.post(f"{address}/model", data=typed).status_code == 303
    again = Drafts(web.workspace.drafts).get(address.rpartition("/")[2])
    assert again.texts == {"model": "tiny", "training.learning_rate": "1,000"}
    page = client.get(f"{address}/method").text
    assert 'value="1,000"' in page and "write 1000" in page
    assert "tiny" in client.get("/new").text  # it is offered again


def test_a_half_filled_draft_is_a_recipe_of_what_was_typed(client):
    made = client.post("/api/v1/drafts", json={"texts": {"model": "tiny"}}).json()
    assert made["yaml"] == "model: tiny\n"
    path = f"/api/v1/drafts/{made['id']}"
    put = client.put(path, json={"texts": {"model": "", "output": "runs/a"}})
    assert put.json()["texts"] == {"output": "runs/a"}
    assert client.get(path).json()["yaml"] == "output: runs/a\n"


@pytest.mark.parametrize("id", ["0" * 16, "x", "..%2f..%2fetc", "%00", "a" * 5000])
def test_drafts_that_are_not_there(client, id):
    for path in (f"/new/{id}/model", f"/api/v1/drafts/{id}"):
        assert client.get(path).status_code == 404
    assert client.get(f"/new/{'0' * 16}/bogus").status_code == 404


def test_a_draft_that_is_damaged_is_said(web, client):
    drafts = Drafts(web.workspace.drafts)
    made = drafts.new({"model": "tiny"})
    (web.workspace.drafts / f"{made.id}.json").write_text("{")
    assert drafts.all() == []
    with pytest.raises(NoDraft, match="cannot be read"):
        drafts.get(made.id)
    assert client.get("/new").status_code == 200


def test_old_drafts_are_removed_and_large_ones_refused(web, client):
    drafts = Drafts(web.workspace.drafts)
    for _ in range(205):
        drafts.new({"model": "tiny"})
    assert len(drafts.all()) == 200
    answer = client.post("/api/v1/drafts", json={"texts": {"model": "x" * 2_100_000}})
    assert answer.status_code == 422 and "at most" in answer.json()["error"]


def test_secrets_do_not_come_back(web, client):
    field = Field("api_key", "secret")
    section = Section("adapter", "", False, (), {"a": Plugin("a", (field,))})
    form = Form({}, {}, {"adapter": section}, ())
    made = Drafts(web.workspace.drafts).new({"adapter.name": "a", "adapter.api_key": "s3cr3t"})
    shown = opened(web, form, made)
    assert shown.checked.recipe["adapter"]["api_key"] == "s3cr3t"
    assert "s3cr3t" not in shown.checked.shown and "***" in shown.checked.shown
    assert "s3cr3t" not in client.get(f"/api/v1/drafts/{made.id}").text
    page = client.post(f"/new/{made.id}/model", data={"adapter.api_key": "", "do": "save"})
    assert page.status_code == 303
    assert texts(web, f"/new/{made.id}")["adapter.api_key"] == "s3cr3t"  # empty: kept
    assert (web.workspace.drafts / f"{made.id}.json").stat().st_mode & 0o077 == 0


# ---- the steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["model", "data", "method", "plan"])
def test_every_step_shows_what_was_typed(client, draft, step):
    answer = client.get(f"{draft}/{step}")
    assert answer.status_code == 200 and 'aria-current="step"' in answer.text
    labels = re.findall(r'<label for="([^"]+)"', answer.text)
    ids = re.findall(r' id="([^"]+)"', answer.text)
    assert len(ids) == len(set(ids)) and set(labels) <= set(ids)
    described = re.findall(r'aria-describedby="([^"]+)"', answer.text)
    assert {each for value in described for each in value.split()} <= set(ids)


def test_every_field_of_the_form_is_on_a_step(client, web, draft):
    """Chosen in turn, the fields of every plugin are shown."""
    form = installed()
    for key, section in form.sections.items():
        at = f"{key}.0" if section.many else key
        step = "data" if key == "dataset" else step_of(key)
        for name in list(section.plugins)[:: 9 if key in ("template", "family") else 1]:
            page = client.post(f"{draft}/{step}", data={f"{at}.name": name}, follow_redirects=True)
            shown = set(re.findall(r'name="([^"]+)"', page.text))
            own = [f for f in section.plugins[name].fields if f.widget != "sources"]
            assert {f"{at}.{f.key}" for f in own} <= shown, (key, name)


def test_defaults_are_placeholders_and_nothing_is_not_zero(client, draft):  # check 9
    client.post(f"{draft}/method", data={"adapter.name": "lora"})
    page = client.get(f"{draft}/method").text
    alpha = re.search(r'<input id="f-adapter.alpha"[^>]*>', page)[0]
    assert 'value=""' in alpha and 'placeholder="not set"' in alpha
    rank = re.search(r'<input id="f-adapter.rank"[^>]*>', page)[0]
    assert 'value=""' in rank and 'placeholder="8"' in rank


def test_another_plugin_swaps_fields_and_keeps_common_values(client, web, draft):  # check 8
    typed = {"adapter.name": "lora", "adapter.rank": "16", "adapter.dora": "true"}
    client.post(f"{draft}/method", data=typed)
    answer = client.post(
        f"{draft}/method",
        data={**typed, "adapter.name": "miss", "do": "save"},
        headers={"HX-Request": "true"},
    )
    assert answer.headers["Tunewright-Fields"] == "changed"
    assert 'id="f-adapter.rank"' in answer.text and 'id="f-adapter.dora"' not in answer.text
    kept = {k: v for k, v in texts(web, draft).items() if k.startswith("adapter.")}
    assert kept == {"adapter.name": "miss", "adapter.rank": "16"}


def test_two_mistakes_are_shown_at_their_fields_with_links(client, draft):  # check 11
    client.post(f"{draft}/method", data={"training.learning_rate": "-1", "stages.0.packing": "x"})
    page = client.post(f"{draft}/method", data={"do": "check"}, follow_redirects=True).text
    summary = page[page.index('id="problems"') : page.index('id="problems"') + 2000]
    assert "autofocus" in summary[:120] and "2 problems" in summary
    for name in ("training.learning_rate", "stages.0.packing"):
        assert f'href="#f-{name}"' in summary
        assert f'id="p-{name}"' in page and f'id="f-{name}"' in page
    other = client.get(f"{draft}/data", params={"check": 1}).text
    assert f"{draft}/method?check=1#f-training.learning_rate" in other
    assert "disabled" in client.get(f"{draft}/plan").text


def test_no_javascript(web, client, rows, monkeypatch):  # check 51
    """The whole way with forms alone, to a job in the queue."""
    monkeypatch.setattr(web.jobs, "start_due", lambda: None)
    made = client.post("/new", data={"do": "blank"}).headers["location"]
    first = {"model": "tiny", "family.name": "qwen", "template.name": "chatml", "do": "next"}
    to = client.post(made, data=first).headers["location"]
    assert to.endswith("/data")
    to = client.post(to, data={"data.0.path": "rows.jsonl", "do": "next"}).headers["location"]
    address = to.rpartition("/")[0]
    assert to.endswith("/method") and texts(web, address)["stages.0.name"] == "sft"
    to = client.post(to, data={"do": "next"}).headers["location"]
    assert to.endswith("/plan") and texts(web, address)["output"] == "runs/tiny-rows"
    assert "The recipe is good" in client.get(to).text
    end = client.post(to, data={"do": "queue"})
    assert end.status_code == 303 and end.headers["location"].endswith("/runs/tiny-rows")
    job = web.jobs.of_output("runs/tiny-rows")
    written = yamlio.read(job.folder / "recipe.yaml")[0]
    assert written == {**RECIPE, "output": "runs/tiny-rows"}
    assert f'data_root="{web.workspace.root}"' in job.argv


def test_rows_are_added_and_removed(client, web, draft):
    to = client.post(f"{draft}/data", data={"do": "add:data"}).headers["location"]
    page = client.get(to).text
    assert 'id="f-data.1.path"' in page and 'id="f-data.2.path"' not in page
    client.post(f"{draft}/data", data={"data.1.path": "b.jsonl", "do": "save"})
    client.post(f"{draft}/data", data={"do": "remove:data.0"})
    assert texts(web, draft)["data.0.path"] == "b.jsonl"
    assert client.get(f"{draft}/data?add=data&rows=999999999").status_code == 200


def test_a_get_changes_nothing(client, web, draft):  # check 52
    before = texts(web, draft)
    for step in ("model", "data", "method", "plan", "recipe.yaml"):
        client.get(f"{draft}/{step}", params={"do": "delete", "model": "other"})
    assert texts(web, draft) == before and not web.jobs.all()


# ---- pages ---------------------------------------------------------------------------------------


def test_every_plugin_is_listed_and_a_broken_one_is_said(client, monkeypatch):  # check 7
    page = client.get("/plugins").text
    assert "/plugins/adapter/lora" in page and "/plugins/exporter/" in page
    assert client.get("/plugins/adapter/bogus").status_code == 404
    assert client.get("/plugins/bogus/lora").status_code == 404
    assert "No plugin fits" in client.get("/plugins", params={"q": "zzzz"}).text
    line = "adapter 'lora' of tunewright-lora 0.1.0 is broken: ImportError: no"
    form = installed()
    adapter = form.sections["adapter"]
    kept = {name: plugin for name, plugin in adapter.plugins.items() if name != "lora"}
    bad = replace(adapter, plugins=kept, broken=(line,))
    other = Form(form.fields, form.groups, {**form.sections, "adapter": bad}, form.entry)
    monkeypatch.setattr("tunewright_web.pages.plugins.installed", lambda: other)
    assert line.replace("'", "&#39;") in client.get("/plugins").text


def test_a_plugin_has_its_options_and_deviations(client):
    page = client.get("/plugins/adapter/lora").text
    assert "<code>rank</code>" in page and "Rank of the update" in page


def test_models_are_searched(client):
    page = client.get("/models", params={"q": "qwen 0.5B"}).text
    assert "Qwen/Qwen2.5-0.5B" in page
    assert "No checkpoint fits" in client.get("/models", params={"q": "zzzz"}).text
    found = client.get("/api/v1/models", params={"q": "Qwen2.5-0.5B-Instruct"}).json()
    assert found["listed"][0]["template"] == "qwen"


def test_family_and_template_of_a_model_are_said(web, client, draft):
    client.post(f"{draft}/model", data={"model": "Qwen/Qwen2.5-0.5B-Instruct", "family.name": ""})
    assert "found in the list of checkpoints" in client.get(f"{draft}/model").text
    folder = web.workspace.root / "models/mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    client.post(f"{draft}/model", data={"model": "models/mine"})
    assert "found in config.json" in client.get(f"{draft}/model").text
    (folder / "config.json").write_text('{"model_type": "bogus"}')
    assert "belongs to no installed family" in client.get(f"{draft}/model").text


def test_the_form_is_given_to_scripts(client):
    found = client.get("/api/v1/schema").json()
    fields = found["sections"]["adapter"]["plugins"]["lora"]["fields"]
    assert {"key": "rank", "widget": "integer", "default": 8}.items() <= fields[3].items()


def test_shown_knows_where_a_problem_is(web):
    made = Drafts(web.workspace.drafts).new({"adapter.name": "bogus"})
    shown = opened(web, installed(), made, is_checked=True)
    assert isinstance(shown, Shown) and shown.problem("adapter") is not None
    assert shown.anchor("adapter") == "adapter.name" and shown.anchor("data") == "data.0.path"
