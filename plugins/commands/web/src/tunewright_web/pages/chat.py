"""The pages Chat."""

import json
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tunewright.terminal import printable
from tunewright_web.chat.chats import chats_of, engine_states
from tunewright_web.chat.conversation import LONGEST, Sampling, parse_tools
from tunewright_web.chat.markdown import rendered
from tunewright_web.chat.store import MEDIA_BYTES, MEDIA_TYPES
from tunewright_web.chat.targets import ChatModel, arguments_of, engine_names, offered, short_name
from tunewright_web.errors import WebError
from tunewright_web.page import Form, Page, get, post, read_body, web_of
from tunewright_web.pages.chat_api import API
from tunewright_web.render import redirect, render

__all__ = ["PAGE"]

_NUMBERS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed")


# ---- pages ---------------------------------------------------------------------------------------


def _index(request: Request) -> Response:
    web, chats = web_of(request), chats_of(request)
    return render(
        request,
        "chat.jinja",
        page="chat",
        chats=chats.store.all(),
        offered=offered(web),
        engines=[(name, name) for name in engine_names()],
        asked=json.dumps({"run": request.query_params.get("run", "")}),
    )


def _begin(request: Request, form: Form) -> Response:
    """Begin a chat, and load its models."""
    web, chats = web_of(request), chats_of(request)
    models = [_model_of(form, side) for side in ("1", "2") if form.get(f"model{side}") != ""]
    for model in models:
        arguments_of(web, model)
    made = chats.store.create(models, form.get("system", "").strip(), [], Sampling())
    chats.engines(made, start=True)
    return redirect(request, f"/chat/{made.id}")


def _model_of(form: Form, side: str) -> ChatModel:
    """The model of a side of the form. Raises WebError."""
    chosen = form.get(f"model{side}", "other")
    more = {key: form.get(f"{key}{side}", "").strip() for key in ("engine", "address")}
    try:
        if chosen == "other":
            template = form.get(f"template{side}", "").strip()
            return ChatModel(model=form.get(f"other{side}", "").strip(), template=template, **more)
        return ChatModel(**(json.loads(chosen) | more))
    except (ValueError, TypeError, ValidationError) as error:
        raise WebError("model: choose one, or name a folder or a hub id", status=422) from error


def _values(request: Request) -> dict[str, Any]:
    chats = chats_of(request)
    chat = chats.current(request.path_params["id"])
    engines = engine_states(chats, chat)
    return {
        "page": "chat",
        "chat": chat,
        "names": [short_name(model) for model in chat.models],
        "engines": engines,
        "states": [each["state"] for each in engines],
        "busy": chats.turn(chat.id) is not None,
        "rendered": rendered,
        "printable": printable,
        "pretty": _pretty,
        "longest": LONGEST,
        "media_types": MEDIA_TYPES,
        "media_bytes": MEDIA_BYTES,
    }


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _show(request: Request) -> Response:
    return render(request, "conversation.jinja", **_values(request))


def _thread(request: Request) -> Response:
    return render(request, "conversation.jinja", block="thread", **_values(request))


def _engines(request: Request) -> Response:
    return render(request, "conversation.jinja", block="engines", **_values(request))


def _load(request: Request, form: Form) -> Response:
    chats = chats_of(request)
    chat = chats.store.load(request.path_params["id"])
    chats.engines(chat, start=True)
    return redirect(request, f"/chat/{chat.id}")


def _unload(request: Request, form: Form) -> Response:
    chats = chats_of(request)
    chat = chats.store.load(request.path_params["id"])
    chats.unload(chat)
    return redirect(request, f"/chat/{chat.id}")


def _settings(request: Request, form: Form) -> Response:
    """Settings of the form. Raises WebError."""
    name = request.path_params["id"]
    given: dict[str, Any] = {
        key: form[key].strip() for key in _NUMBERS if form.get(key, "").strip()
    }
    thinking = {"on": True, "off": False}.get(form.get("enable_thinking", ""))
    stop = [line for line in form.get("stop", "").splitlines() if line]
    sampling = Sampling(**given, stop=stop, enable_thinking=thinking)
    tools = parse_tools(form.get("tools", ""))
    system = form.get("system", "").replace("\r\n", "\n").strip()
    chats_of(request).change(name, system=system, tools=tools, sampling=sampling)
    return redirect(request, f"/chat/{name}")


def _delete(request: Request, form: Form) -> Response:
    chats_of(request).delete(request.path_params["id"])
    return redirect(request, "/chat")


def _media(request: Request) -> Response:
    store = chats_of(request).store
    path, kind = store.media(request.path_params["id"], request.path_params["file"])
    return FileResponse(path, media_type=kind)


async def _upload(request: Request) -> Response:
    data = await read_body(request, MEDIA_BYTES)
    kind = request.headers.get("content-type", "")
    store, name = chats_of(request).store, request.path_params["id"]
    found = await run_in_threadpool(store.add_media, name, kind, data)
    return JSONResponse(found.model_dump(), 201)


PAGE = Page(
    "chat",
    routes=(
        get("/chat", _index),
        post("/chat", _begin),
        get("/chat/{id}", _show),
        get("/chat/{id}/thread", _thread),
        get("/chat/{id}/engines", _engines),
        get("/chat/{id}/media/{file}", _media),
        Route("/chat/{id}/media", _upload, methods=["POST"]),
        post("/chat/{id}/load", _load),
        post("/chat/{id}/unload", _unload),
        post("/chat/{id}/settings", _settings),
        post("/chat/{id}/delete", _delete),
    ),
    api=API,
)
