"""All pages, in the order of the navigation. A page is a module with `PAGE`."""

from tunewright_web.page import Page
from tunewright_web.pages import (
    chat,
    compare,
    data,
    evaluate,
    export,
    models,
    new,
    panel,
    plugins,
    queue,
    run,
    runs,
    settings,
)

__all__ = ["PAGES"]

PAGES: tuple[Page, ...] = (
    runs.PAGE,
    run.PAGE,
    queue.PAGE,
    new.PAGE,
    compare.PAGE,
    chat.PAGE,
    evaluate.PAGE,
    export.PAGE,
    models.PAGE,
    data.PAGE,
    plugins.PAGE,
    settings.PAGE,
    panel.PAGE,
)
