"""Every page of the workbench, with something to show on it."""

from browser.talker import begin_chat
from browser.workbench import Workbench
from tunewright_web.pages import NAVIGATION
from tunewright_web.wizard import STEPS

__all__ = ["places"]


def places(workbench: Workbench) -> list[str]:
    """Paths of all pages: those of the navigation, the views of a run, a comparison and a chat."""
    run = "/runs/greeter"
    found = [entry.path for entry in NAVIGATION]
    found += [run, *(f"{run}?tab={tab}" for tab in ("log", "samples", "files", "recipe"))]
    found += ["/compare?run=greeter&run=longer", "/runs/nothing", _chat(workbench)]
    found += [*_wizard(workbench), "/plugins/adapter/lora"]
    return found


def _wizard(workbench: Workbench) -> list[str]:
    """The steps of a draft."""
    texts = {"model": "tiny", "family.name": "qwen", "adapter.name": "lora"}
    _, made = workbench.api("/drafts", {"texts": texts})
    return [f"/new/{made['id']}/{step}" for step in STEPS]


def _chat(workbench: Workbench) -> str:
    """A conversation whose model is not there any more: nothing is loaded for it."""
    _, chats = workbench.api("/chats")
    kept = [each["id"] for each in chats if each["models"][0]["run"] == "longer"]
    return f"/chat/{kept[0]}" if kept else begin_chat(workbench, {"run": "longer"})
