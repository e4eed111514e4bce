"""Predictions of a run, written to a file."""

import sys
from pathlib import Path

from tunewright import RecipeError, RunError
from tunewright.context import Run
from tunewright.errors import Stopped
from tunewright.inference import EngineRequest, GenerateRequest
from tunewright.terminal import printable, progress_bar
from tunewright.words import counted
from tunewright_hf.inference.opened_runs import policy_digest
from tunewright_hf.predictions.examples import Examples, example_sources
from tunewright_hf.predictions.lines import ResultLines
from tunewright_hf.predictions.predict import predict, sampling_settings

__all__ = ["check_output", "write"]


def write(
    run: Run,
    engine_request: EngineRequest,
    request: GenerateRequest,
    data: str,
    output: Path,
    changes: list[str],
    *,
    limit: int | None,
    overwrite: bool,
) -> None:
    """Answer the data, and write the file. changes: of the run, by the user. Raises RunError if a
    row has failed."""
    check_output(output, overwrite)
    examples = Examples(run, example_sources(run, data), limit)
    with run.call("engine", "open_engine", engine_request) as engine:
        settings = {
            "changes": changes,
            "run": policy_digest(run),
            "data": examples.digest,
            "engine": run.plugin("engine").name,
            **sampling_settings(request, engine),
        }
        with ResultLines(output, settings, overwrite=overwrite) as lines, progress_bar() as bar:
            if lines.done:
                _say(f"{counted(len(lines.done), 'row')} of {examples.count} are there already")
            try:
                failed = predict(
                    run,
                    engine,
                    examples,
                    request,
                    lines,
                    in_flight=2 * engine_request.slots,
                    progress=lambda done, total: bar("predict", done, total),
                )
            except KeyboardInterrupt:
                hint = "the same command goes on"
                raise Stopped(
                    f"stopped after {len(lines.done)} of {examples.count} rows", hint=hint
                ) from None
            lines.finish()
    print(printable(f"{output} holds {counted(examples.count, 'row')}"))
    if failed:
        problem = f"{counted(failed, 'row')} of {examples.count} could not be answered"
        raise RunError(problem, place=str(output), hint='such lines have "error"')


def check_output(output: Path, overwrite: bool) -> None:
    """Raise RecipeError where the file cannot be written anew."""
    if output.is_dir():
        raise RecipeError("is a folder, expected a file", place=str(output), hint="--output FILE")
    if output.exists() and not overwrite:
        hint = "name another file, or --overwrite"
        raise RecipeError("exists already", place=str(output), hint=hint)


def _say(message: str) -> None:
    print(printable(message), file=sys.stderr)
