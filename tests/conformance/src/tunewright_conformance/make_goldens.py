"""Write the golden of a template as it renders now: `python -m tunewright_conformance.make_goldens
NAME FOLDER`.

Review the file before you commit it: from then on it is the expected result. Its `official` is
kept.
"""

import json
import sys
from pathlib import Path

from tunewright import registry
from tunewright_conformance.bench import on_bench
from tunewright_conformance.goldens import of_cases


def make(name: str, folder: Path) -> Path:
    """Write folder/NAME.json. FOLDER is `goldens` in the plugin's own package."""
    path = folder / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept["cases"] = of_cases(on_bench(registry.find("template", name)))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(make(sys.argv[1], Path(sys.argv[2])))
