"""Exports that are stopped, killed, or find no room: nothing half-written stands under the name."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.exporting import export, report

#: exports, and waits when half of it is written
SLOW = """
import sys, time
from tunewright_hf.models import export
own = export.save_result
def save(loaded, folder, *more, **options):
    own(loaded, folder, *more, **options)
    print("half", flush=True)
    time.sleep(60)
export.save_result = save
from tunewright.cli import main
sys.exit(main())
"""


def started(run: Path, to: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SLOW, "export", str(run), "--to", "safetensors"]
    process = subprocess.Popen(
        [*command, "--output", str(to)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "half\n"
    return process


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_stopped(full: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = started(full, tmp_path / "to")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_killed(full: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    process = started(full, to)
    process.kill()
    process.communicate(timeout=60)
    assert not to.exists()
    export(full, "--to", "safetensors", "--output", to)
    assert report(to)["verified"]
    assert list(tmp_path.iterdir()) == [to]  # what the other one left is gone


def test_no_room(full: Path, tmp_path: Path) -> None:
    """A file may have 100 kB: what a full disk does at that point."""
    to = tmp_path / "to"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    call = "from tunewright.cli import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", limit + call, "export", str(full), "--to", "safetensors"]
    done = subprocess.run(
        [*command, "--output", str(to)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert f"{to}: cannot be written" in done.stderr
    assert ".to.new" not in done.stderr
    assert "--resume" not in done.stderr
    assert "--output" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["safetensors", "adapter", "ollama", "bitsandbytes", "fp8"])
def test_a_format_appears_whole_or_not(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunewright_export.compare.compare", stopped)  # all files are written
    assert export(lora, "--to", to, "--output", tmp_path / "to").exit_code != 0
    assert not list(tmp_path.iterdir())
