"""Copy changed code blocks of the English pages to their translations.

    python scripts/sync_translations.py [--check]

Prose is left alone. Where an English page has more or fewer blocks than its translation, somebody
has to translate: the page is named, and the exit code is 1. With --check nothing is written.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:^<!-- not run: .+? -->\n)?^```.*?^```$", re.MULTILINE | re.DOTALL)


def main(arguments: list[str]) -> int:
    check, failed = "--check" in arguments, False
    for page in sorted((ROOT / "docs").rglob("*.zh.md")):
        english = page.with_name(page.name.replace(".zh.md", ".md"))
        text = page.read_text("utf-8")
        new = merged(text, english.read_text("utf-8"))
        name = page.relative_to(ROOT)
        if new is None:
            print(f"{name}: {english.name} has another number of code blocks: translate it anew")
            failed = True
        elif new != text:
            print(f"{name} {'is out of date: run `make fix`' if check else 'written'}")
            failed = failed or check
            if not check:
                page.write_text(new, "utf-8")
    return int(failed)


def merged(text: str, english: str) -> str | None:
    """A translation with the blocks of the English page; None if their numbers differ."""
    blocks = [found[0] for found in BLOCK.finditer(english)]
    if len(blocks) != len(BLOCK.findall(text)):
        return None
    waiting = iter(blocks)
    return BLOCK.sub(lambda _: next(waiting), text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
