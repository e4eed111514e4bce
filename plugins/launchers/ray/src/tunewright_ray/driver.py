"""The process that the user started: it has Ray start the workers, and waits."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from tunewright.errors import RunError
from tunewright.launch import Launched, LaunchRequest
from tunewright.stopper import signals
from tunewright_ray.worker import train

_TO_ANSWER = 1800  # seconds that a rank waits for the others in a collective


def launched(options: Any, request: LaunchRequest, timeout: float | None) -> Launched:
    """Run the workers, and wait for them. timeout: seconds that they wait for each other. Raises
    RunError."""
    workers = request.processes * int(request.nodes)
    resources = options.resources or {"CPU": 1}
    placement = options.placement or ("PACK" if request.nodes == 1 else "SPREAD")
    if request.dry_run:
        where = options.address or os.environ.get("RAY_ADDRESS") or "a cluster on this host"
        words = f"{workers} workers with {resources} each, {placement}, on {where}"
        return Launched(detail=f"{words}: tunewright {' '.join(request.argv)}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        hint = "tunewright env create ray; then tunewright env run ray -- tunewright train …"
        raise RunError(f"Ray is not installed: {error}", place="launch", hint=hint) from error
    _connect(ray, options.address, request.environment)
    control: Any = ray.remote(num_cpus=0)(Control).remote()
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "argv": request.argv,
            "environment": request.environment,
            "folder": str(Path.cwd()),
            "control": control,
        },
        torch_config=TorchConfig(timeout_s=int(timeout or _TO_ANSWER)),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.get("GPU", 0) > 0,
            resources_per_worker=resources,
            placement_strategy=placement,
        ),
        run_config=RunConfig(
            name=request.folder.name,
            storage_path=options.storage,
            failure_config=FailureConfig(max_failures=options.max_failures),
        ),
    )
    try:
        failure = _fit(trainer, control, request)
        codes = ray.get(control.codes.remote())
    finally:
        ray.shutdown()
    code = max(codes.values(), default=1)
    if failure is not None and code < 2:
        said = " ".join(str(failure).split())
        hint = "what the workers said is above; go on with --resume"
        raise RunError(f"the workers failed: {said:.300}", place="launch", hint=hint)
    return Launched(code)


def _connect(ray: Any, address: str | None, environment: dict[str, str]) -> None:
    own = {number: signal.getsignal(number) for number in signals()}
    try:
        ray.init(address=address, runtime_env={"env_vars": environment}, log_to_driver=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        hint = "ray start --head starts a cluster"
        raise RunError(f"no Ray cluster: {said:.300}", place="launch.address", hint=hint) from error
    for number, handler in own.items():  # Ray's own would end this process, and the run with it
        signal.signal(number, handler)


def _fit(trainer: Any, control: Any, request: LaunchRequest) -> BaseException | None:
    """Train in a thread, so that this one hears signals. Returns the failure."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failed.append(error)

    thread, told = threading.Thread(target=fit, daemon=True), False
    thread.start()
    while thread.is_alive():
        if request.stop_requested() and not told:
            told = True
            control.stop.remote()
        thread.join(0.5)  # seconds
    return failed[0] if failed else None


class Control:
    """Actor that the driver and all workers know: whether to stop, and how workers ended."""

    def __init__(self) -> None:
        self._asked = False
        self._begun: dict[int, int] = {}
        self._codes: dict[int, int] = {}

    def stop(self) -> None:
        self._asked = True

    def asked(self) -> bool:
        return self._asked

    def begin(self, rank: int) -> int:
        """Count a start of this rank, and return how many there were."""
        self._begun[rank] = self._begun.get(rank, 0) + 1
        self._codes.pop(rank, None)
        return self._begun[rank]

    def end(self, rank: int, code: int) -> None:
        self._codes[rank] = code

    def codes(self) -> dict[int, int]:
        """Exit code of each rank that ended."""
        return self._codes
