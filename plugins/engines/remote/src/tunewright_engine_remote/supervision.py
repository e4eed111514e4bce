"""A server that is started, watched and started again; or one that runs already."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from tunewright import RecipeError, RunError
from tunewright.errors import did_you_mean
from tunewright.index import environment_folder
from tunewright.inference import EngineRequest
from tunewright.types import RunContext
from tunewright_engine_remote.child import Child, free_port, last_errors
from tunewright_engine_remote.served import Served
from tunewright_engine_remote.servers import BASE, Launch

if TYPE_CHECKING:
    from tunewright_engine_remote import RemoteEngine

_TOKEN = "TUNEWRIGHT_ENGINE_TOKEN"
_UPDATES = (
    "vLLM needs VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora for adapters, "
    "VLLM_SERVER_DEV_MODE=1 for weights; SGLang --enable-lora for adapters"
)
_MOST, _WITHIN = 3, 600.0  # restarts, within so many seconds
_CONNECT = 10.0  # seconds


class Supervisor:
    """A server that answers at an address. base: its name of the model. names: of the policy and
    the adapters; None: the model itself."""

    def __init__(self, title: str, address: str, token: str) -> None:
        self.title, self.address, self._token = title, address, token
        self.base, self.max_length = BASE, 0
        self.names: list[str | None] = [None]
        self.has_failed = False  # its log, if there is one, is to be kept

    def client(self) -> httpx2.AsyncClient:
        """A client for one event loop."""
        return httpx2.AsyncClient(**self._how(timeout=httpx2.Timeout(None, connect=_CONNECT)))

    def check(self) -> None:
        """Raise RunError while the server does not run."""

    def trace(self) -> str:
        """Return what to add to the error of a request at which the server failed: its log, which
        is kept."""
        return ""

    def close(self) -> None:
        """End what was started."""

    def _how(self, **more: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        # neither a proxy nor ~/.netrc of this machine is for a server that the user names
        return (
            {"base_url": self.address, "headers": headers, "limits": limits}
            | more
            | {"trust_env": False}
        )

    def models(self) -> list[dict[str, Any]]:
        """The models that the server lists. It is not asked for one: servers differ in that
        route. Raises RunError."""
        try:
            with httpx2.Client(**self._how(timeout=_CONNECT)) as client:
                response = client.get("/v1/models")
                response.raise_for_status()
                found: list[dict[str, Any]] = response.json()["data"]
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            hint = f"is {self.title} running there? Its token is taken from {_TOKEN}"
            said = str(error).partition("\n")[0] or type(error).__name__
            raise RunError(f"lists no models: {said}", place=self.address, hint=hint) from error
        return found

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Send a request that changes the server. Waits. Raises RunError."""
        try:
            with httpx2.Client(
                **self._how(timeout=httpx2.Timeout(None, connect=_CONNECT))
            ) as client:
                response = client.post(path, json=body)
        except httpx2.HTTPError as error:
            said = str(error).partition("\n")[0] or type(error).__name__
            problem = f"{self.title} does not take {path}: {said}{self.trace()}"
            raise RunError(problem, place=self.address) from error
        if response.status_code != 200:
            said = " ".join(response.text.split())[:300]
            said += self.trace() if response.status_code >= 500 else ""
            problem = f"{self.title} refuses {path} with {response.status_code}: {said}"
            raise RunError(problem, place=self.address, hint=_UPDATES)

    def learn(self, models: list[dict[str, Any]], name: str) -> None:
        """Take the length from the server's list of models."""
        listed = {each["id"]: each for each in models}
        if name not in listed:
            hint = did_you_mean(name, listed)
            raise RunError(f"serves no model {name!r}", place=self.address, hint=hint)
        self.base, self.max_length = name, int(listed[name].get("max_model_len") or 0)


def attached(engine: "RemoteEngine", address: str, adapters: Sequence[str]) -> Supervisor:
    """A server that runs already. Raises RunError if it does not serve what is asked for."""
    found = Supervisor(engine.title, address, os.environ.get(_TOKEN, ""))
    models = found.models()
    names = [each["id"] for each in models]
    if not names:
        raise RunError("serves no model", place=address)
    for name in adapters:
        if name not in names:
            raise RunError(
                f"serves no adapter {name!r}", place=address, hint=did_you_mean(name, names)
            )
    found.learn(models, engine.options.model_name or names[0])
    found.names = [None, *adapters]
    return found


def launched(
    run: RunContext, engine: "RemoteEngine", request: EngineRequest, served: Served, folder: Path
) -> "Watched":
    """Start a server, and wait until it answers. Raises RunError."""
    launch = Launch(
        environment=environment(engine),
        model=served.model,
        revision=served.revision,
        adapters=served.adapters,
        rank=served.rank,
        slots=request.slots,
        max_length=request.max_length,
        trust_remote_code=run.trust_remote_code,
        arguments=list(engine.options.arguments),
        folder=folder,
        updates=request.updates,
    )
    found = Watched(engine, launch)
    found.names = served.names
    return found


def environment(engine: "RemoteEngine") -> Path:
    """The folder of the server's environment. Raises RunError."""
    given, name = engine.options.environment, engine.name
    folder = Path(given).expanduser().absolute() if given else environment_folder(name)
    if not (folder / "bin/python").exists():
        hint = f"tunewright env create {name}, or give a folder as engine.environment"
        problem = f"there is no environment with {engine.title} in {folder}"
        raise RunError(problem, place="engine", hint=hint)
    return folder


def check_arguments(engine: "RemoteEngine") -> None:
    """Raise RecipeError for arguments that are set here."""
    ours = engine.server().arguments | {"--trust-remote-code", "--revision"}
    for argument in engine.options.arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name in ours:
            hint = "remote code is allowed on Tunewright's command line only"
            hint = hint if name == "--trust-remote-code" else "leave it out"
            problem = f"{name} is set by Tunewright"
            raise RecipeError(problem, place="engine.arguments", hint=hint)


class Watched(Supervisor):
    """A server that was started. Where it ends by itself it is started again, up to three times in
    ten minutes; meanwhile `check` raises."""

    def __init__(self, engine: "RemoteEngine", launch: Launch) -> None:
        launch.port = free_port()
        super().__init__(engine.title, f"http://127.0.0.1:{launch.port}", launch.token)
        self._command, self._variables = engine.server().command(launch)
        self._seconds = engine.options.start_seconds
        self._child = Child(engine.title, launch.folder / f"{engine.name}.log")
        self._down, self._closing = "", False
        self._deaths: list[float] = []
        self._start()
        threading.Thread(target=self._watch, name="tunewright-watch", daemon=True).start()

    def _start(self) -> None:
        self._child.start(self._command, self._variables)
        try:
            self._child.wait_until(self._is_ready, self._seconds)
            self.learn(self.models(), BASE)
        except BaseException:
            self._child.stop()
            raise

    def _is_ready(self) -> bool:
        if self._closing:
            raise RunError("the engine is closed")
        try:
            with httpx2.Client(**self._how(timeout=_CONNECT)) as client:
                return client.get("/health").status_code == 200
        except httpx2.HTTPError:
            return False

    def _watch(self) -> None:
        while True:
            said = self._child.wait()
            if self._closing:
                return
            self.has_failed, now = True, time.monotonic()
            self._deaths = [each for each in self._deaths if now - each < _WITHIN] + [now]
            if len(self._deaths) > _MOST:
                self._down = f"{said}, for the {len(self._deaths)}th time in ten minutes"
                return
            self._down = f"{said}; it is being started again"
            try:
                self._start()
            except RunError as error:
                self._down = f"{said}, and could not be started again: {error.problem}"
                return
            self._down = ""

    def check(self) -> None:
        if self._down:
            raise RunError(self._down, place=self.title, hint=f"its log: {self._child.log}")

    def trace(self) -> str:
        self.has_failed = True
        return f"; its log, {self._child.log}, says {last_errors(self._child.log)}"

    def close(self) -> None:
        self._closing = True
        self._child.stop()
