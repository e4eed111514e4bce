"""New run: recipes, examples, runs and configurations of others as beginnings, and uploads.

Checks of the report are named by their number.
"""

import pytest
import yaml

from tunewright_web import begin
from tunewright_web.drafts import Drafts
from tunewright_web.form import installed
from web.new_setup import RECIPE, rows

__all__ = ["rows"]


# ---- beginnings ----------------------------------------------------------------------------------


def test_an_unknown_key_says_did_you_mean(client):  # check 13
    text = yaml.safe_dump({**RECIPE, "adapter": {"name": "lora", "ranck": 4}})
    to = client.post("/new", data={"do": "recipe", "text": text}).headers["location"]
    page = client.get(to).text
    assert "did you mean &#39;rank&#39;?" in page and "adapter.ranck" in page
    method = client.get(to.replace("/plan", "/method"), params={"check": 1}).text
    assert 'name="adapter.ranck"' in method


@pytest.mark.parametrize(  # check 13
    "text",
    [
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"x{n}: &x{n} [{', '.join([f'*{p}'] * 10)}]\n"
            for n, p in enumerate(["a", "x0", "x1", "x2", "x3"])
        ),
        "!!python/object/apply:os.system ['id']",
        "[1, 2",
        "just a text",
        "",
        "model: a\nmodel: b",
        "a: " + "[" * 1000,
    ],
)
def test_texts_that_are_no_recipe_are_refused(client, web, text):
    answer = client.post("/new", data={"do": "recipe", "text": text})
    assert answer.status_code == 422
    assert Drafts(web.workspace.drafts).all() == []


def test_an_example_brings_its_data(web, client):
    to = client.post("/new", data={"do": "example", "example": "quickstart"}).headers["location"]
    assert (web.workspace.root / "data/wren.jsonl").is_file()
    assert "The recipe is good" in client.get(to).text
    assert client.post("/new", data={"do": "example", "example": "../x"}).status_code == 404


def test_every_example_of_the_docs_can_be_begun(web):
    drafts = Drafts(web.workspace.drafts)
    names = [each.name for each in begin.examples()]
    assert names[0] == "quickstart" and len(names) > 30
    for name in names:
        made = begin.from_example(installed(), drafts, web.workspace, name)
        assert made.texts["model"] and made.texts["output"].startswith("runs/")


def test_a_run_is_begun_again_without_its_defaults(web, client, rows):
    from tunewright.check import resolve

    recipe = {**RECIPE, "adapter": {"name": "lora", "rank": 4}, "training": {"seed": 7}}
    whole = resolve({**recipe, "data_root": str(web.workspace.root)}).recipe.as_dict()
    folder = web.workspace.runs / "first"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    to = client.post("/new", data={"do": "run", "run": "first"}).headers["location"]
    found = yaml.safe_load(client.get(to.replace("/plan", "/recipe.yaml")).text)
    assert found == {**recipe, "output": "runs/first-2"}


def test_a_configuration_of_llamafactory_is_translated(client):
    config = {
        "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "dataset": "alpaca",
        "template": "qwen",
        "output_dir": "saves/x",
        "bogus": 1,
    }
    text = yaml.safe_dump(config)
    to = client.post("/new", data={"do": "llamafactory", "text": text}).headers["location"]
    page = client.get(to).text
    assert "bogus" in page and "expected runs/NAME" in page
    recipe = yaml.safe_load(client.get(to.replace("/plan", "/recipe.yaml")).text)
    assert recipe["adapter"] == {"name": "lora", "rank": 4, "alpha": 8}
    bad = client.post("/new", data={"do": "llamafactory", "text": "stage: nonsense"})
    assert bad.status_code == 422


# ---- uploads -------------------------------------------------------------------------------------


def test_an_upload_is_kept_under_its_own_name(web, client):
    answer = client.post("/api/v1/uploads?name=a b.jsonl", content=b"{}\n")
    assert answer.status_code == 201 and answer.json() == {"path": "uploads/a b.jsonl", "bytes": 3}
    assert (web.workspace.uploads / "a b.jsonl").read_bytes() == b"{}\n"
    assert client.post("/api/v1/uploads?name=a b.jsonl", content=b"").status_code == 409
    assert "uploads/a b.jsonl" in client.get("/data").text
    gone = client.post("/data/delete", data={"path": "uploads/a b.jsonl"})
    assert gone.status_code == 303 and not list(web.workspace.uploads.iterdir())


@pytest.mark.parametrize(
    "name",
    ["../a.jsonl", "a/b.jsonl", "/etc/a.jsonl", ".a.jsonl", "a.zip", "a.tar.gz", "a.py", "a"],
)
def test_names_of_uploads_that_are_refused(web, client, name):
    answer = client.post("/api/v1/uploads", params={"name": name}, content=b"{}")
    assert answer.status_code == 422
    assert not web.workspace.uploads.exists() or not list(web.workspace.uploads.iterdir())


def test_an_upload_that_is_too_large_leaves_nothing(web, client, monkeypatch):
    monkeypatch.setattr("tunewright_web.pages.new_api._UPLOAD_BYTES", 10)
    answer = client.post("/api/v1/uploads?name=a.jsonl", content=b"x" * 11)
    assert answer.status_code == 413 and not list(web.workspace.uploads.iterdir())


def test_only_uploads_are_deleted(web, client, rows):
    for path in ("rows.jsonl", "runs", "/etc/passwd", ".tunewright/token"):
        assert client.post("/data/delete", data={"path": path}).status_code in (403, 404)
    assert rows.exists()
