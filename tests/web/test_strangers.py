"""A plugin of a third party is in the form by itself, and a broken one is said. Check 7."""

import json
import os
import subprocess
import sys
from pathlib import Path

SOURCE = """
from pydantic import Field
from tunewright import Adapter, PluginOptions, hookimpl

class Stranger(Adapter):
    "From nowhere."
    class Options(PluginOptions):
        depth: int = Field(3, gt=0, json_schema_extra={"tier": "basic", "unit": "layers"})
        "How deep it goes."
        api_key: str | None = None
        "A secret."

    @hookimpl
    def apply_adapter(self, run, request):
        return request.loaded
"""
ASKED = """
import json, sys
from tunewright_web import form
section = form.installed().sections["adapter"]
found = section.plugins["stranger"].fields
print(json.dumps({
    "fields": [[f.key, f.widget, f.default, f.unit, f.tier, f.help] for f in found],
    "broken": section.broken,
    "others": len(section.plugins),
    "imported": sorted({"torch", "transformers", "stranger"} & sys.modules.keys()),
}))
"""


def test_a_plugin_that_is_installed_is_in_the_form(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "stranger.py").write_text(SOURCE)
    about = "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\nSummary: From nowhere.\n"
    (info / "METADATA").write_text(f"{about}Requires-Dist: tunewright>=0.1\n")
    points = "stranger = stranger:Stranger\nbroken = stranger:NotThere\n"
    (info / "entry_points.txt").write_text(f"[tunewright.adapter]\n{points}")
    env = {**os.environ, "PYTHONPATH": str(site), "TUNEWRIGHT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", ASKED]
    for _ in range(2):  # made in a child process, then from the cache
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["fields"] == [
            ["depth", "integer", 3, "layers", "basic", "How deep it goes."],
            ["api_key", "secret", None, "", "more", "A secret."],
        ]
        assert found["others"] > 10 and found["imported"] == []
        assert len(found["broken"]) == 1
        assert "'broken' of stranger 1.0 is broken: AttributeError" in found["broken"][0]
