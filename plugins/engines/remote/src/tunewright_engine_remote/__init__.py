"""Inference engines that are servers of their own: vLLM and SGLang."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tunewright import Engine, PluginOptions, Problem, hookimpl
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.types import RunContext
from tunewright_engine_remote.objections import problems, update_problems

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright_engine_remote.servers import Server


class RemoteOptions(PluginOptions):
    """Options of both engines."""

    environment: str | None = Field(None, min_length=1, json_schema_extra={"widget": "path"})
    """Folder of the Python environment in which the server is installed. Default: the one that
    `tunewright env create` made."""
    address: str | None = Field(None, pattern=r"^https?://[^/]+$")
    """Address of a server that runs already, such as http://127.0.0.1:8000; none is started. Its
    token is taken from the variable TUNEWRIGHT_ENGINE_TOKEN."""
    model_name: str | None = Field(None, min_length=1)
    """With address: the server's name of the run's model. Default: the first that it lists."""
    arguments: list[str] = Field(default_factory=list)
    """Further arguments of the server's command line, such as --tensor-parallel-size 2."""
    merge: bool = False
    """Merge the run's adapter into the weights, in a temporary folder, for an adapter that the
    server cannot apply."""
    start_seconds: float = Field(900, gt=0, json_schema_extra={"tier": "advanced"})
    """Seconds within which the server must answer."""


class RemoteEngine(Engine):
    """Generates in a server of its own, which gets token ids: prompts are rendered, replies parsed
    here."""

    title: ClassVar[str]  #: the server's name in messages
    #: quantizers whose checkpoints it loads as they are
    quantizers: ClassVar[frozenset[str]]

    def server(self) -> "Server":
        """Return the kind of server."""
        raise NotImplementedError

    def objections(self, recipe: "Resolved") -> Iterable[Problem]:
        return problems(self, recipe)

    def update_objections(self, recipe: "Resolved") -> Iterable[Problem]:
        return update_problems(self, recipe)

    @hookimpl
    def open_engine(self, run: RunContext, request: EngineRequest) -> InferenceEngine:
        from tunewright_engine_remote.opened import OpenedServer

        return OpenedServer(run, request, self)


class Vllm(RemoteEngine):
    """vLLM, in a process and an environment of its own: `tunewright env create vllm`."""

    class Options(RemoteOptions):
        pass

    title = "vLLM"
    quantizers = frozenset({"awq", "compressed_tensors", "fp8", "gptq", "mxfp4"})

    def server(self) -> "Server":
        from tunewright_engine_remote.servers import VllmServer

        return VllmServer()


class Sglang(RemoteEngine):
    """SGLang, in a process and an environment of its own: `tunewright env create sglang`."""

    class Options(RemoteOptions):
        deterministic: bool = False
        """Start it with --enable-deterministic-inference: without, SGLang has no seeds, and
        requests with one are refused. Slower."""

    title = "SGLang"
    quantizers = frozenset({"awq", "compressed_tensors", "fp8", "gptq", "mxfp4"})

    def server(self) -> "Server":
        from tunewright_engine_remote.servers import SglangServer

        return SglangServer(self.options.deterministic)
