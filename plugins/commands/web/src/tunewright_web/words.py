"""Languages of the pages: catalogues keyed by the English text.

A language is a folder `words/LANGUAGE`. Its `language.txt` has the language's own name and its tag
(BCP 47), a line each; its files `*.toml` have a table `[words]`: English text → translation. A text
that a catalogue lacks stays English; a test counts them.
"""

import functools
from collections.abc import Iterator, Mapping
from importlib import resources

__all__ = ["LANGUAGES", "TAGS", "Words", "catalogue", "chosen"]

_FOLDER = resources.files("tunewright_web").joinpath("words")


def _languages() -> Iterator[tuple[str, str, str]]:
    """Name of the folder, the language's own name, and its tag."""
    yield "en", "English", "en"
    for folder in sorted(_FOLDER.iterdir(), key=lambda each: each.name):
        name, tag = folder.joinpath("language.txt").read_text("utf-8").split()
        yield folder.name, name, tag


#: language → its own name, in the order of the menu
LANGUAGES = {language: name for language, name, _ in _languages()}
#: language → its tag, for the attribute lang
TAGS = {language: tag for language, _, tag in _languages()}


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """English text → translation, of all files of the language."""
    found: dict[str, str] = {}
    folder = _FOLDER.joinpath(language)
    if language != "en":
        import tomllib

        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            if file.name.endswith(".toml"):
                found |= tomllib.loads(file.read_text("utf-8"))["words"]
    return found


class Words:
    """Translates to one language: `_("{n} runs", n=3)`. own: words that go first."""

    def __init__(self, language: str, own: Mapping[str, str] | None = None) -> None:
        self.language = language
        self._known = {**catalogue(language), **own} if own else catalogue(language)

    def __call__(self, text: str, **values: object) -> str:
        found = self._known.get(text, text)
        return found.format(**values) if values else found


def chosen(cookie: str | None, accepted: str) -> str:
    """The language of a request. accepted: its Accept-Language header."""
    if cookie in LANGUAGES:
        return cookie
    weighed: list[tuple[float, str]] = []
    for part in accepted.split(",")[:20]:
        name, _, weight = part.partition(";q=")
        try:
            weighed.append((-float(weight or 1), name.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    for _, name in sorted(weighed, key=lambda each: each[0]):
        if name in LANGUAGES:
            return name
    return "en"
