"""API of recipes: forms, drafts, checks, previews, plans and uploads."""

import contextlib
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunewright.errors import Problem
from tunewright.recipe import mask
from tunewright_web import begin, checkpoints, looking
from tunewright_web.checking import check
from tunewright_web.data_files import is_data
from tunewright_web.drafts import Draft, Drafts, NoDraft
from tunewright_web.errors import WebError
from tunewright_web.form import installed
from tunewright_web.page import Api, Call
from tunewright_web.recipe_form import read, texts_of
from tunewright_web.values import as_yaml
from tunewright_web.workspace import plain_name

__all__ = ["API", "RecipeBody", "is_secret", "texts_of_body"]

_UPLOAD_BYTES = 4 * 2**30


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecipeBody(_Strict):
    """A recipe as JSON, or the id of a draft."""

    recipe: dict[str, Any] | None = None
    draft: str | None = Field(None, max_length=40)


class PreviewBody(RecipeBody):
    """A recipe or draft, and which rows."""

    count: int = Field(5, ge=0, le=50)
    stage: int = Field(1, ge=1, le=100)


class DraftBody(_Strict):
    """Texts of the form's fields by their names, or a recipe in place of all."""

    texts: dict[str, str] | None = None
    recipe: dict[str, Any] | None = None


class UploadQuery(_Strict):
    """Name of the file."""

    name: str = Field(max_length=200)


class ModelsQuery(_Strict):
    """Words to search for."""

    q: str = Field("", max_length=200)
    family: str = Field("", max_length=100)


def texts_of_body(call: Call) -> dict[str, str]:
    body = call.body
    if (body.recipe is None) == (body.draft is None):
        raise WebError("expected either recipe or draft", status=422)
    if body.draft is not None:
        return _draft(call, body.draft).texts
    return texts_of(installed(), body.recipe)


def _draft(call: Call, id: str) -> Draft:
    try:
        return Drafts(call.web.workspace.drafts).get(id)
    except NoDraft as error:
        raise WebError(error.problem, error.hint, status=404) from error


def _problem(problem: Problem) -> dict[str, Any]:
    return {"path": list(problem.path), "message": problem.message, "hint": problem.hint}


def _check(call: Call) -> dict[str, Any]:
    found = check(installed(), texts_of_body(call), call.web.workspace)
    return {"problems": [_problem(each) for each in found.problems], "yaml": found.shown}


def _preview(call: Call) -> dict[str, Any]:
    found = check(installed(), texts_of_body(call), call.web.workspace)
    shown = looking.preview(
        found.recipe,
        call.web.workspace,
        key=str(call.body.draft or id(call)),
        count=call.body.count,
        number=call.body.stage,
    )
    return asdict(shown) | {"trained_share": shown.share}


def _plan(call: Call) -> dict[str, Any]:
    found = check(installed(), texts_of_body(call), call.web.workspace)
    if found.problems:
        raise WebError("the recipe has problems", status=422, problems=found.problems)
    key = str(call.body.draft or id(call))
    return {"stages": looking.plan(found.recipe, call.web.workspace, key=key)}


def _schema(call: Call) -> dict[str, Any]:
    return installed().as_json()


def _models(call: Call) -> dict[str, Any]:
    return {
        "listed": checkpoints.search(call.query.q, call.query.family),
        "folders": checkpoints.folders(call.web.workspace),
    }


def _shown(draft: Draft) -> dict[str, Any]:
    """A draft without secrets."""
    texts = {name: "***" if is_secret(name) else text for name, text in draft.texts.items()}
    yaml = as_yaml(mask(read(installed(), draft.texts).recipe))
    return asdict(draft) | {"texts": texts, "yaml": yaml}


def is_secret(name: str) -> bool:
    """Whether a field holds a key or a password, by its name."""
    key = name.rpartition(".")[2]
    return bool(mask({key: "-"}) != {key: "-"})


def _get(call: Call) -> dict[str, Any]:
    return _shown(_draft(call, call.path("draft")))


def _put(call: Call) -> dict[str, Any]:
    id, drafts = call.path("draft"), Drafts(call.web.workspace.drafts)
    _draft(call, id)
    if (call.body.texts is None) == (call.body.recipe is None):
        raise WebError("expected either texts or recipe", status=422)
    if call.body.recipe is not None:
        return _shown(drafts.replace(id, texts_of(installed(), call.body.recipe)))
    return _shown(drafts.change(id, call.body.texts))


def _new(call: Call) -> dict[str, Any]:
    drafts = Drafts(call.web.workspace.drafts)
    if call.body.recipe is not None:
        return _shown(begin.from_yaml(installed(), drafts, as_yaml(call.body.recipe)))
    return _shown(drafts.new(call.body.texts))


async def _upload(call: Call) -> dict[str, Any]:
    name = plain_name(call.query.name, "name")
    if not is_data(name):
        hint = "data files are .jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow; unpack archives"
        raise WebError(f"{name!r:.120} is no data file", hint, status=422)
    folder = call.web.workspace.uploads
    folder.mkdir(exist_ok=True)
    target = folder / name
    if target.exists():
        raise WebError(f"uploads/{name} is there already", "give it another name", status=409)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".upload-")
    try:
        size = 0
        with open(handle, "wb") as file:
            async for chunk in call.request.stream():
                size += len(chunk)
                if size > _UPLOAD_BYTES:
                    raise WebError(f"a file has at most {_UPLOAD_BYTES} bytes", status=413)
                file.write(chunk)
        os.link(temporary, target)  # never replaces a file
    except FileExistsError as error:
        raise WebError(f"uploads/{name} is there already", status=409) from error
    finally:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
    return {"path": f"uploads/{name}", "bytes": size}


API = (
    Api("GET", "/schema", _schema, "The form of a recipe: sections, plugins and fields."),
    Api("GET", "/models", _models, "Listed checkpoints and models here.", query=ModelsQuery),
    Api("POST", "/check", _check, "Check a recipe.", body=RecipeBody),
    Api("POST", "/preview", _preview, "Rows as the model sees them.", body=PreviewBody),
    Api("POST", "/plan", _plan, "Memory and steps of each stage.", body=RecipeBody),
    Api("POST", "/drafts", _new, "Make a draft.", body=DraftBody, status=201),
    Api("GET", "/drafts/{draft}", _get, "Read a draft."),
    Api("PUT", "/drafts/{draft}", _put, "Change texts of a draft.", body=DraftBody),
    Api("POST", "/uploads", _upload, "Upload a data file.", query=UploadQuery, status=201),
)
