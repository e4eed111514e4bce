"""Import libraries in a process of its own: `python probe.py NAME…`. A JSON line before and after
each, so that one that ends the process, or hangs, is known.

Run as a file, so that it imports nothing of Tunewright.
"""

import importlib
import json
import sys
import warnings
from typing import Any


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    for name in names:
        print(json.dumps({"begins": name}), flush=True)
        found: dict[str, Any] = {"name": name}
        try:
            module = importlib.import_module(name)
            found["version"] = str(getattr(module, "__version__", ""))
            found |= {"torch": _torch, "torchvision": _torchvision}.get(name, _nothing)(module)
        except BaseException as error:  # a broken library raises anything
            said = " ".join(f"{type(error).__name__}: {error}".split())
            found["problem"] = said[:300]
            found["missing"] = isinstance(error, ModuleNotFoundError) and error.name == name
        print(json.dumps(found), flush=True)


def _nothing(module: Any) -> dict[str, Any]:
    return {}


def _torch(torch: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"cuda": torch.version.cuda or "", "hip": torch.version.hip or ""}
    found["mps"] = torch.backends.mps.is_available()
    found["devices"] = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            found["devices"].append(
                {
                    "name": about.name,
                    "capability": f"{about.major}.{about.minor}",
                    "free": free,
                    "total": total,
                }
            )
        (torch.ones(2, device="cuda") * 2).sum().item()  # kernels for this device exist
    return found


def _torchvision(torchvision: Any) -> dict[str, Any]:
    """One of another torch imports, and has no operators."""
    import torch

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
