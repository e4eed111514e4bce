"""Requests that schemathesis makes from /openapi.json: none is an internal error, and responses are
as described."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from serve.serving import TOKEN, scripted

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,"
CHECKS += "response_schema_conformance,ignored_auth,unsupported_method"


def test_schemathesis(tmp_path: Path) -> None:
    def answer(request: Any) -> str:
        return "one two three"

    program = Path(sys.executable).with_name("schemathesis")
    with scripted(answer) as running:
        command = [program, "run", f"{running.address}/openapi.json"]
        command += ["--phases", "fuzzing", "--max-examples", "6"]
        command += ["-H", f"Authorization: Bearer {TOKEN}", "--checks", CHECKS, "--seed", "1"]
        done = subprocess.run(
            [
                *command,
                "--no-color",
                "--suppress-health-check",
                "all",
                "--generation-database",
                "none",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "14 selected / 14 total" in done.stdout
