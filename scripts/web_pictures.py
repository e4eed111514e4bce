"""Create pictures of the workbench. Needs Chromium.

python scripts/web_pictures.py            those of docs/how-to/web.md: docs/images/web-*.png,
                                          the quickstart, each taken while its steps are done
                                          by mouse
python scripts/web_pictures.py FOLDER     every page at three widths, light and dark, in both
                                          languages, to look at after a change
"""

import itertools
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import Page  # noqa: E402

# the tests are no package that type checkers know
from browser.driver import WIDTHS, chromium, opened  # type: ignore[import-not-found] # noqa: E402
from browser.places import places  # type: ignore[import-not-found] # noqa: E402
from browser.test_quickstart import quickstart  # type: ignore[import-not-found] # noqa: E402
from browser.workbench import Workbench, make_workspace  # type: ignore[import-not-found] # noqa: E402

_WIDTH, _HEIGHT = 1200, 760  # CSS pixels, one of them a pixel of the picture


def main(arguments: list[str]) -> None:
    if arguments:
        every_page(Path(arguments[0]))
    else:
        of_the_docs()


def of_the_docs() -> None:
    def picture(page: Page, name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # of a chart's animation
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        page.screenshot(path=IMAGES / f"web-{name}.png")
        print(f"wrote docs/images/web-{name}.png")

    with (
        serving() as server,
        chromium() as browser,
        opened(browser, server.address, width=_WIDTH) as found,
    ):
        found.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
        server.enter(found.page)
        print(quickstart(found.page, picture))


def every_page(folder: Path) -> None:
    """PAGE-WIDTH-COLOURS-LANGUAGE.png: whole pages, of a workspace with two runs."""
    with serving(trained=True) as server, chromium() as browser:
        paths = places(server)
        for width, dark, language in itertools.product(WIDTHS, (False, True), ("en", "zh")):
            look = f"{width}-{'dark' if dark else 'light'}-{language}"
            with opened(
                browser, server.address, width=width, dark=dark, language=language
            ) as found:
                server.enter(found.page)
                for path in paths:
                    found.page.goto(server.address + path)
                    found.page.wait_for_load_state("networkidle")
                    found.page.wait_for_timeout(300)  # of a chart
                    name = re.sub(r"[0-9a-f]{8,}", "ID", path).strip("/") or "runs"
                    name = re.sub(r"[^a-zA-Z0-9]+", "-", name)
                    found.page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
            print(f"wrote {len(paths)} pictures {folder}/*-{look}.png", flush=True)


@contextmanager
def serving(*, trained: bool = False) -> Iterator[Workbench]:
    """A server on a new workspace: empty, or with runs."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        workspace.mkdir()
        if trained:
            make_workspace(workspace)
        server = Workbench(workspace)
        server.start()
        try:
            yield server
        finally:
            server.stop()
            server.end_jobs()


if __name__ == "__main__":
    main(sys.argv[1:])
