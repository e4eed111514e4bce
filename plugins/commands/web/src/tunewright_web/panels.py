"""Panels: pages, and parts of a run's page, that other distributions add to the workbench.

class Notes(Panel):
    place, label, templates = "run", "Notes", "templates"

    def show(self, context: Context) -> Markup:
        return context.render("notes.jinja", text=…)

[project.entry-points."tunewright.panel"]
notes = "tunewright_notes:Notes"
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jinja2
from markupsafe import Markup

from tunewright import registry
from tunewright.errors import TunewrightError
from tunewright.plugin_base import Plugin
from tunewright_web.errors import WebError
from tunewright_web.jobs import Jobs
from tunewright_web.run import Run
from tunewright_web.runs import Runs
from tunewright_web.words import Words
from tunewright_web.workspace import Workspace

__all__ = ["Context", "Panel", "Shown", "installed", "shown"]


@dataclass(frozen=True, slots=True)
class Context:
    """Parts of one request that a panel may use.

    run: the run whose page it is on, else None. recipe: in New run what the draft says so far, else
    None. words: `context.words("text")`
    translates. address: of the panel; a form of it posts to `ADDRESS/ACTION`. loaded: its
    templates.
    """

    run: Run | None
    runs: Runs
    jobs: Jobs
    workspace: Workspace
    words: Words
    address: str
    loaded: jinja2.Environment | None = None
    recipe: Mapping[str, Any] | None = None

    def render(self, template: str, **values: Any) -> Markup:
        """HTML of a template of the panel, which knows `_` and the context's parts."""
        if self.loaded is None:
            raise TypeError("the panel names no folder of templates")
        known = {"_": self.words, "address": self.address, "run": self.run, "recipe": self.recipe}
        return Markup(self.loaded.get_template(template).render({**known, **values}))  # noqa: S704


class Panel(Plugin):
    """Kind panel: a page of the web workbench, or a part of each run's page.

    Its HTML is shown under the workbench's policy: no inline script or style, nothing of another
    host. The classes of static/app.css give it the look of the other pages.
    """

    #: nav: a page of its own, with an entry in the navigation; run: a tab on the page of a run;
    #: new: below the last step of New run
    place: ClassVar[Literal["nav", "run", "new"]] = "nav"
    #: of the entry or tab, in English
    label: ClassVar[str] = ""
    #: folder of its Jinja templates in its package; "": it has none
    templates: ClassVar[str] = ""
    #: language → English text → translation
    words: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def shows(self, run: Run) -> bool:
        """Return whether a run has this tab. Default: every run."""
        return True

    def show(self, context: Context) -> Markup:
        """Return the HTML. Called for every request of its page: it changes nothing."""
        raise NotImplementedError

    def act(self, context: Context, action: str, form: Mapping[str, str]) -> None:
        """Do what a form asked for that was sent to `ADDRESS/ACTION`; its page is shown again.

        Raises WebError for what cannot be done.
        """
        raise WebError(f"there is no action {action!r:.40}", status=404)


@dataclass(frozen=True, slots=True)
class Shown:
    """An installed panel; `broken` says why it cannot be used."""

    name: str
    label: str
    panel: Panel | None
    broken: str = ""
    loaded: jinja2.Environment | None = None


@functools.cache
def installed() -> tuple[Shown, ...]:
    """Installed panels, by name."""
    return tuple(_opened(entry) for entry in registry.entries("panel"))


def _opened(entry: registry.Entry) -> Shown:
    try:
        kind = registry.load(entry)
        if not issubclass(kind, Panel):
            raise TypeError(f"{entry.value} is not a subclass of tunewright_web.panels.Panel")
        panel = kind(kind.Options(), entry.name)
        loaded = None
        if panel.templates:
            loader = jinja2.PackageLoader(kind.__module__.partition(".")[0], panel.templates)
            loaded = jinja2.Environment(loader=loader, autoescape=True)
    except TunewrightError as error:
        return Shown(entry.name, entry.name, None, str(error))
    except Exception as error:  # a plugin may raise anything
        return Shown(entry.name, entry.name, None, registry.brokenness(entry, error))
    return Shown(entry.name, panel.label or entry.name, panel, loaded=loaded)


def shown(panel: Shown, context: Context) -> Markup | str:
    """HTML of a panel; what it raised is a line of text."""
    if panel.panel is None:
        return panel.broken
    try:
        made = panel.panel.show(context)
        if not isinstance(made, Markup):
            raise TypeError(f"show gives {type(made).__name__}, expected markupsafe.Markup")
    except Exception as error:
        return f"panel {panel.name!r} is broken: {type(error).__name__}: {error}"[:500]
    return made
