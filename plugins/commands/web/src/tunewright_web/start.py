"""From the options of the command to a server that runs, and its end."""

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from tunewright.errors import RecipeError, RunError
from tunewright_web.app import make_app
from tunewright_web.guard import Guard
from tunewright_web.render import error_response
from tunewright_web.schema_child import installed_schema
from tunewright_web.web import Web
from tunewright_web.workspace import Workspace, write_file

__all__ = ["Settings", "guarded", "serve"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the command."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 7860
    socket: Path | None = None
    allowed: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    root_path: str = ""
    token_file: Path | None = None
    slots: tuple[str, ...] = ("",)
    trusted: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The proxy's path, beginning with a slash and without one at its end."""
        inner = self.root_path.strip("/")
        return f"/{inner}" if inner else ""


def serve(settings: Settings) -> None:
    """Serve until a signal. Raises TunewrightError."""
    web = opened(settings)
    token = _token(settings, web.workspace)
    with _listening(settings) as bound:
        web.port = 0 if settings.socket else bound.getsockname()[1]
        app = guarded(web, token, settings)
        _announce(settings, web, token)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_keep_alive=60,
                timeout_graceful_shutdown=2,  # seconds: no request of a page is lost by it
            )
        )
        # seconds for the first New run after plugins were installed, if they began at its request
        threading.Thread(target=_make_schema, daemon=True).start()
        with _signals_end_the_server():
            server.run(sockets=[bound])


def _make_schema() -> None:
    with contextlib.suppress(RunError):  # New run says it
        installed_schema()


def opened(settings: Settings) -> Web:
    """The workbench of the options. Raises RecipeError."""
    root = settings.root.expanduser()
    if not root.is_dir():
        raise RecipeError("is no folder", place=str(root), hint=f"mkdir {root}")
    for folder in settings.allowed:
        if not folder.expanduser().is_dir():
            raise RecipeError("is no folder", place=f"--allow {folder}")
    workspace = Workspace(root, settings.allowed)
    try:
        workspace.create()
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise RunError(problem, place=str(workspace.root)) from error
    token_file = settings.token_file or workspace.hidden / "token"
    return Web(
        workspace, trusted=settings.trusted, slots=settings.slots, token_file=token_file.absolute()
    )


def guarded(web: Web, token: str, settings: Settings) -> Guard:
    """The application behind its guard."""
    app = make_app(web)

    def refuse(request: object, error: object) -> object:
        request.scope["app"] = app  # type: ignore[attr-defined] # templates ask for its state
        return error_response(request, error)  # type: ignore[arg-type]

    cookie = f"tunewright-{web.port}"
    return Guard(app, refuse, token, cookie, settings.hosts, settings.prefix)  # type: ignore[arg-type]


def _token(settings: Settings, workspace: Workspace) -> str:
    """The token of the workspace, which stays: pages that are open go on after a new start."""
    path = settings.token_file
    if path is None:
        own = workspace.hidden / "token"
        if not own.exists():
            write_file(own, secrets.token_urlsafe(24) + "\n")  # of mode 0600
        path = own
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot be read: {error}", place=str(path)) from error
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        problem = "expected a token of at least 16 ASCII characters"
        raise RecipeError(problem, place=str(path))
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    if settings.socket is None:
        with _bound(settings.host, settings.port) as bound:
            yield bound
        return
    path = settings.socket.absolute()
    with _bound_to_file(path) as bound:
        try:
            yield bound
        finally:
            path.unlink(missing_ok=True)


def _bound_to_file(path: Path) -> socket.socket:
    """A Unix socket that only this user can open. One that a killed server left is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and made.connect_ex(str(path)):
            path.unlink()
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen()
    except OSError as error:
        made.close()
        problem = f"cannot be bound: {error.strerror or error}"
        hint = "a server listens there, or it is a file: choose another path"
        raise RunError(problem, place=str(path), hint=hint) from error
    return made


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":  # there it would let two servers share the port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen()  # who follows the printed address at once waits, and is not refused
    except OSError as error:
        made.close()
        problem = f"cannot be bound: {error.strerror or error}"
        free = _next_free(host, port, family)
        hint = f"--port {free} is free" if free else "choose another address with --host"
        raise RunError(problem, place=f"{host}:{port}", hint=hint) from error
    return made


def _next_free(host: str, port: int, family: int) -> int | None:
    for other in range(port + 1, min(port + 101, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, other))
            except OSError:
                continue
            return other
    return None


def _announce(settings: Settings, web: Web, token: str) -> None:
    print(f"Tunewright workbench of {web.workspace.root}")
    if settings.socket:
        print(f"Forward a port to it: ssh -L 7860:{settings.socket.absolute()} THIS_HOST")
        print(f"Then open http://localhost:7860{settings.prefix}/?token={token}")
        print("Ctrl-C ends the server; jobs go on.", flush=True)
        return
    host = settings.host if settings.host not in ("0.0.0.0", "::") else socket.gethostname()  # noqa: S104
    name = f"[{host}]" if ":" in host else host
    print(f"Open http://{name}:{web.port}{settings.prefix}/?token={token}")
    if not _is_loopback(settings.host):
        print("Whoever has this address can run programs on this machine as you.")
    elif os.environ.get("SSH_CONNECTION"):
        print(f"From another machine, first: ssh -L {web.port}:127.0.0.1:{web.port} THIS_HOST")
    print("Ctrl-C ends the server; jobs go on.", flush=True)


@contextmanager
def _signals_end_the_server() -> Iterator[None]:
    """After uvicorn has drained, it raises the signal again: by then all is done."""
    old = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN, which a child process would inherit."""
