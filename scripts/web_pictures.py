"""Create the pictures of docs/how-to/web.md: `python scripts/web_pictures.py`. Needs Chromium.

docs/images/web-*.png   the quickstart in the workbench, from an empty workspace to an answer, each
                        taken in the browser while the steps are done by mouse
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
sys.path.insert(0, str(ROOT / "tests"))

from playwright.sync_api import Page  # noqa: E402

# the tests are no package that type checkers know
from browser.driver import chromium, opened  # type: ignore[import-not-found] # noqa: E402
from browser.test_quickstart import quickstart  # type: ignore[import-not-found] # noqa: E402
from browser.workbench import Workbench  # type: ignore[import-not-found] # noqa: E402

_WIDTH, _HEIGHT = 1200, 760  # CSS pixels, one of them a pixel of the picture


def main() -> None:
    def picture(page: Page, name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)  # of a chart's animation
        page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
        page.screenshot(path=IMAGES / f"web-{name}.png")
        print(f"wrote docs/images/web-{name}.png")

    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        workspace = Path(folder) / "workspace"
        workspace.mkdir()
        server = Workbench(workspace)
        server.start()
        try:
            with opened(browser, server.address, width=_WIDTH) as found:
                found.page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
                server.enter(found.page)
                print(quickstart(found.page, picture))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
