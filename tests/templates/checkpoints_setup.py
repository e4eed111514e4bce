"""Templates of listed checkpoints, and what is said with them."""

from template_cases import assistant, system, talk, template, user
from tunewright import registry
from tunewright_hf.models import listed

GRANITE = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: {}.\nYou are Granite, developed by IBM. "
)
CHAT = talk(user("Hi"), assistant("Hello!"), user("2+2?"))
WITH_SYSTEM = talk(system("Be brief."), *CHAT.messages)


def of(checkpoint: str, **options: object) -> object:
    packages = [entry.value.partition(":")[0] for entry in registry.entries("family")]
    found = listed.find(checkpoint, packages[0])
    assert found is not None
    return template(found.template, **found.template_options | options)
