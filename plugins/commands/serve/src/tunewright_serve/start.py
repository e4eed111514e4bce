"""From the options of the command to a server that runs, and its end."""

import ipaddress
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tunewright import RecipeError
from tunewright.context import Run
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.recipe import Section
from tunewright_hf.inference.opening import parse_adapters
from tunewright_hf.templates.jinja_template import JinjaTemplate
from tunewright_serve.fetching import checked_host
from tunewright_serve.idle import IdleEngine
from tunewright_serve.media import MEDIA
from tunewright_serve.server import (
    Server,
    bound_socket,
    described_defaults,
    signals_end_the_server,
)
from tunewright_serve.service import Limits, Service

__all__ = ["Settings", "serve"]

_BODY_WITH_MEDIA = 64 * 2**20  # bytes of a request: videos come in it


@dataclass(frozen=True, slots=True)
class Settings:
    """Options that are not the engine's."""

    host: str
    port: int
    name: str
    token_file: Path | None
    no_token: bool
    hosts: tuple[str, ...]
    media_hosts: tuple[str, ...]
    timeout: float
    drain: int
    idle_minutes: float | None
    open_requests: int

    def adapters(self, given: Sequence[str]) -> dict[str, Path]:
        """Parse NAME=PATH. Raises RecipeError."""
        found = parse_adapters(given)
        if self.name in found:
            raise RecipeError(f"two models are named {self.name!r}", place="--adapter")
        return found

    def checked_media_hosts(self) -> frozenset[str]:
        """Hosts from which media may be fetched. Raises RecipeError."""
        try:
            return frozenset(map(checked_host, self.media_hosts))
        except ValueError as error:
            raise RecipeError(str(error), place="--allow-media-host") from error

    def token(self) -> str | None:
        """The token that clients must send; None: none. Raises RecipeError."""
        if self.no_token:
            if not _is_loopback(self.host):
                problem = f"{self.host} can be reached from other machines"
                hint = "leave --no-token out, or listen on 127.0.0.1"
                raise RecipeError(problem, place="--no-token", hint=hint)
            return None
        if self.token_file is None:
            return secrets.token_urlsafe(24)
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise RecipeError(f"cannot be read: {error}", place=str(self.token_file)) from error
        if len(token) < 16 or not token.isascii():
            problem = "expected a token of at least 16 ASCII characters"
            raise RecipeError(problem, place=str(self.token_file))
        return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(run: Run, request: EngineRequest, settings: Settings) -> None:
    """Load the engine and serve until a signal. Raises TunewrightError."""
    token = settings.token()
    with ExitStack() as opened:
        bound = opened.enter_context(bound_socket(settings.host, settings.port))
        request.head = "score" if run.policy_head == "score" else "causal_lm"
        engine = opened.enter_context(_engine(run, request, settings.idle_minutes))
        _allow_any_role_order(run)
        limits = Limits(requests=settings.open_requests, answer_seconds=settings.timeout)
        if MEDIA.keys() & engine.features:
            limits = replace(limits, body=_BODY_WITH_MEDIA)
        service = Service(
            engine,
            run.plugin("template").info,
            _names(engine, settings.name),
            limits,
            settings.checked_media_hosts(),
            # templates of checkpoints are rendered by a worker, which may take its time to fail;
            # and an idle engine may have to load the model
            isinstance(run.plugin("template"), JinjaTemplate) and not settings.idle_minutes,
        )
        server = Server(service, token=token, hosts=settings.hosts, drain_seconds=settings.drain)
        bound.listen()  # who follows the printed address at once waits, and is not refused
        host, port = bound.getsockname()[:2]
        _announce(service, f"http://{f'[{host}]' if ':' in host else host}:{port}", token, settings)
        with signals_end_the_server():
            server.run(sockets=[bound])
        service.close()


def _engine(run: Run, request: EngineRequest, idle_minutes: float | None) -> InferenceEngine:
    def open_engine() -> InferenceEngine:
        engine: InferenceEngine = run.call("engine", "open_engine", request)
        return engine

    return IdleEngine(open_engine, 60 * idle_minutes) if idle_minutes else open_engine()


def _allow_any_role_order(run: Run) -> None:
    """Clients send what they like, such as two messages of a user in a row: the check is for
    training data."""
    knows = "role_order" in run.plugin("template").Options.model_fields
    if knows and (section := run.template) is not None:
        run.use("template", Section(name=section.name, **section.options | {"role_order": "any"}))


def _names(engine: InferenceEngine, name: str) -> dict[str, str]:
    first, *adapters = engine.models
    return {name: first} | {adapter: adapter for adapter in adapters}


def _announce(service: Service, address: str, token: str | None, settings: Settings) -> None:
    print(f"Serving {', '.join(service.names)} at {address}/v1")
    if token is not None and settings.token_file is None:
        print(f"Token: {token}")
    print(described_defaults(service.engine.defaults), flush=True)
