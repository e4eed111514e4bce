"""The page New run: beginnings of a draft, and the wizard's steps on it."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tunewright.errors import TunewrightError
from tunewright_web import begin, checkpoints, looking, wizard
from tunewright_web.data_files import data_files
from tunewright_web.drafts import Draft, Drafts
from tunewright_web.errors import WebError, web_error
from tunewright_web.form import installed
from tunewright_web.merging import changed, without
from tunewright_web.page import Form, Page, get, post, web_of
from tunewright_web.pages.new_api import API, is_secret
from tunewright_web.pages.panel import panels_of_new
from tunewright_web.recipe_form import read
from tunewright_web.render import redirect, render, words_of
from tunewright_web.web import Web
from tunewright_web.wizard import ROWS, STEPS, Shown

__all__ = ["PAGE"]

_ORDER = tuple(STEPS)
_MOST_ROWS = 100  # of a list that a page shows


def _begin(request: Request) -> Response:
    web = web_of(request)
    names = [each.name for each in web.workspace.runs.iterdir() if (each / "recipe.yaml").is_file()]
    drafts = [draft for draft in Drafts(web.workspace.drafts).all() if draft.texts][:10]
    return render(
        request,
        "new.jinja",
        page="new",
        examples=[(each.name, f"{each.name}: {each.about}"[:90]) for each in begin.examples()],
        runs=[(name, name) for name in sorted(names)],
        drafts=drafts,
        chosen=request.query_params.get("from", ""),
    )


def _made(request: Request, form: Form) -> Response:
    web, do = web_of(request), form.get("do", "blank")
    drafts, fields = Drafts(web.workspace.drafts), installed()
    text = form.get("text", "")
    if do == "example":
        draft = begin.from_example(fields, drafts, web.workspace, form.get("example", ""))
    elif do == "run":
        draft = begin.from_run(fields, drafts, web.workspace, form.get("run", ""))
    elif do == "recipe":
        draft = begin.from_yaml(fields, drafts, text, form.get("name", ""))
    elif do == "llamafactory":
        draft = begin.from_llamafactory(fields, drafts, web.workspace, text, form.get("name", ""))
    elif do in ("blank", "model", "data"):
        name = {"data": "data.0.path"}.get(do, "model")
        draft = drafts.new({name: form[do]} if form.get(do) else {})
    else:
        raise WebError(f"{do!r:.40} is no beginning", status=422)
    is_whole = do not in ("blank", "model", "data")
    return redirect(request, f"/new/{draft.id}/{'plan' if is_whole else 'model'}")


# ---- a step --------------------------------------------------------------------------------------


def _step(request: Request) -> Response:
    web, draft, step = _draft(request)
    query = request.query_params
    extra = {query.get("add", ""): _number(query.get("rows", ""))}
    shown = wizard.opened(
        web, installed(), draft, is_checked="check" in query or step == "plan", extra=extra
    )
    return _page(request, shown, step)


def _typed(request: Request, form: Form) -> Response:
    web, draft, step = _draft(request)
    fields, drafts = installed(), Drafts(web.workspace.drafts)
    do = form.get("do", "save")
    typed = {name: text for name, text in form.items() if _is_typed(name, text)}
    texts = changed(fields, draft.texts, typed)
    same = _choices(texts) == _choices(draft.texts)
    verb, _, about = do.partition(":")
    if verb == "remove":
        texts = without(texts, about)
    elif verb == "set":
        name, _, text = about.partition("=")
        texts = changed(fields, texts, {name: text})
    if verb in ("next", "go"):
        to = about or _ORDER[min(_ORDER.index(step) + 1, len(_ORDER) - 1)]
        texts |= wizard.suggested(web, fields, texts, to)
    if texts != draft.texts:
        draft = drafts.replace(draft.id, texts)
    if "hx-request" in request.headers:
        extra = {name.removeprefix(ROWS): _number(text) for name, text in form.items()}
        shown = wizard.opened(web, fields, draft, is_checked=bool(form.get("check")), extra=extra)
        answer = _page(request, shown, step, block="wizard")
        answer.headers["Tunewright-Fields"] = "same" if same else "changed"
        return answer
    return _after(request, web, draft, step, verb, about)


def _after(request: Request, web: Web, draft: Draft, step: str, verb: str, about: str) -> Response:
    """The way on after a button without JavaScript, or one that leaves the page."""
    here = f"/new/{draft.id}"
    if verb == "next":
        return redirect(request, f"{here}/{_ORDER[min(_ORDER.index(step) + 1, 3)]}")
    if verb == "back":
        return redirect(request, f"{here}/{_ORDER[max(_ORDER.index(step) - 1, 0)]}")
    if verb == "go" and about in STEPS:
        return redirect(request, f"{here}/{about}")
    if verb == "check":
        return redirect(request, f"{here}/{step}", check=1)
    if verb == "preview":
        return redirect(request, f"{here}/data", preview=1)
    if verb == "add":
        shown = wizard.opened(web, installed(), draft)
        least = 1 if about in ("data", "stages") else 0
        return redirect(request, f"{here}/{step}", add=about, rows=shown.rows(about, least) + 1)
    if verb in ("smoke", "queue"):
        try:
            job = wizard.queue(web, installed(), draft.texts, smoke=verb == "smoke")
        except WebError as error:
            if error.status != 422:
                raise
            return redirect(request, f"{here}/plan", check=1)
        name = str(job.output).removeprefix("runs/")
        return redirect(request, f"/runs/{name}")
    if verb == "delete":
        Drafts(web.workspace.drafts).remove(draft.id)
        return redirect(request, "/new")
    return redirect(request, f"{here}/{step}")


def _page(request: Request, shown: Shown, step: str, block: str = "") -> Response:
    web = web_of(request)
    values: dict[str, Any] = {}
    if step == "model":
        model, family = shown.text("model"), shown.text("family.name")
        values["found"] = checkpoints.find(model, web.workspace, family)
        values["folders"] = checkpoints.folders(web.workspace)
        values["listed"] = (
            checkpoints.search(model, family)[:8] if model not in ("", "tiny") else []
        )
    elif step == "data":
        values["files"] = data_files(web.workspace)
        values["preview"] = "preview" in request.query_params
    elif step == "plan":
        values["panels"] = panels_of_new(request, shown.draft.id, shown.checked.recipe)
    _ = words_of(request)
    return render(
        request,
        "wizard.jinja",
        block=block,
        page="new",
        shown=shown,
        form=shown.form,
        step=step,
        steps=STEPS,
        anchors=[
            (wizard.step_of(name), shown.anchor(name), name, problem)
            for name, problem in shown.problems
        ],
        command=_command(shown),
        title=_(STEPS[step]),
        **values,
    )


def _command(shown: Shown) -> str:
    """The command line that trains the recipe without this page."""
    return "tunewright train recipe.yaml"


# ---- parts that take a while ---------------------------------------------------------------------


def _preview(request: Request) -> Response:
    return _looked(request, "preview.jinja", looking.preview)


def _plan(request: Request) -> Response:
    return _looked(request, "plan.jinja", looking.plan)


def _looked(request: Request, template: str, look: Callable[..., Any]) -> Response:
    """A look at the draft, for a part of the page; as a page of its own without JavaScript."""
    web, draft, _ = _draft(request)
    found, problem = None, None
    try:
        found = look(read(installed(), draft.texts).recipe, web.workspace, key=draft.id)
    except (TunewrightError, WebError) as error:
        problem = web_error(error)
    block = "part" if "hx-request" in request.headers else ""
    return render(
        request, template, block=block, page="new", draft=draft, found=found, error=problem
    )


def _recipe(request: Request) -> Response:
    web, draft, _ = _draft(request)
    text = wizard.opened(web, installed(), draft).checked.yaml
    headers = {"Content-Disposition": 'attachment; filename="recipe.yaml"'}
    return PlainTextResponse(text, headers=headers)


# ---- small parts ---------------------------------------------------------------------------------


def _draft(request: Request) -> tuple[Web, Draft, str]:
    web, step = web_of(request), request.path_params.get("step", "model")
    if step not in STEPS:
        raise WebError("there is no such page", status=404)
    return web, _kept(web, request.path_params["draft"]), step


def _kept(web: Web, name: str) -> Draft:
    try:
        return Drafts(web.workspace.drafts).get(name)
    except TunewrightError as error:
        raise WebError(error.problem, error.hint, status=404) from error


def recipe_of(web: Web, draft: str) -> dict[str, Any]:
    """The recipe of a draft, as far as it can be read. Raises WebError."""
    return read(installed(), _kept(web, draft).texts).recipe


def _is_typed(name: str, text: str) -> bool:
    """Whether it is a field's text. A secret is never sent to the browser: empty, it is kept."""
    if name in ("do", "check", "filter") or name.startswith("@"):
        return False
    return bool(text) or not is_secret(name)


def _number(text: str) -> int:
    """Rows that a page shows."""
    return min(int(text), _MOST_ROWS) if text.isdecimal() and len(text) < 6 else 0


def _choices(texts: Mapping[str, str]) -> dict[str, str]:
    """Texts on which the fields of the page depend."""
    return {name: text for name, text in texts.items() if name.endswith(".name") or name == "model"}


PAGE = Page(
    "new",
    routes=(
        get("/new", _begin),
        post("/new", _made),
        get("/new/{draft}/preview", _preview),
        get("/new/{draft}/plan-table", _plan),
        get("/new/{draft}/recipe.yaml", _recipe),
        get("/new/{draft}/{step}", _step),
        post("/new/{draft}/{step}", _typed),
    ),
    api=API,
)
