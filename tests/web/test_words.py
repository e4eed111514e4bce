"""Catalogues: every text of the pages is translated, and nothing else stands in them.

Check 49 of the report.
"""

import re
import tomllib
from collections import Counter
from html.parser import HTMLParser

import pytest

import web_strings as strings
from tunewright_web import words
from tunewright_web.drafts import Drafts
from tunewright_web.pages import NAVIGATION
from tunewright_web.wizard import STEPS
from tunewright_web.words import LANGUAGES, Words, catalogue

OTHERS = [language for language in LANGUAGES if language != "en"]


@pytest.fixture(scope="module")
def texts():
    return strings.everything()


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated(language, texts):
    missing = sorted(texts - catalogue(language).keys())
    assert not missing, "\n".join(["words/zh lacks:", *missing])


@pytest.mark.parametrize("language", OTHERS)
def test_nothing_is_translated_that_no_page_has(language, texts):
    unused = sorted(catalogue(language).keys() - texts)
    assert not unused, "\n".join(["no page has:", *unused])


@pytest.mark.parametrize("language", OTHERS)
def test_a_text_is_translated_once(language):
    files = sorted((strings.PACKAGE / "words" / language).glob("*.toml"))
    found = Counter(
        key for file in files for key in tomllib.loads(file.read_text("utf-8"))["words"]
    )
    assert [key for key, count in found.items() if count > 1] == []


@pytest.mark.parametrize("language", OTHERS)
def test_names_numbers_and_papers_are_kept(language):
    """What a translation must not change: fields to fill in, code in backticks, papers."""
    kept = re.compile(r"\{\w+\}|`[^`]+`|arXiv:[\d.]+")
    for text, translated in catalogue(language).items():
        assert Counter(kept.findall(text)) == Counter(kept.findall(translated)), text
        assert translated.strip() == translated and translated


@pytest.mark.parametrize("language", OTHERS)
def test_descriptions_are_sentences_of_the_language(language):
    """A description that was copied in English has no letter of the language."""
    if language == "zh":
        for text in strings.of_options():
            if len(text) > 40:
                assert re.search(r"[一-鿿]", catalogue(language)[text]), text


def test_an_unknown_text_stays_english():
    assert Words("zh")("no page has this {n}", n=3) == "no page has this 3"


class _Texts(HTMLParser):
    """Texts and spoken attributes of a page, without code and what users or plugins named."""

    _NOT = ("code", "pre", "textarea", "script", "style", "option")
    _SPOKEN = ("placeholder", "aria-label", "title", "data-confirm", "alt")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._skipped = 0

    def handle_starttag(self, tag, attrs):
        self._skipped += tag in self._NOT
        self.found += [value or "" for name, value in attrs if name in self._SPOKEN]

    def handle_endtag(self, tag):
        self._skipped -= tag in self._NOT

    def handle_data(self, data):
        if not self._skipped:
            self.found.append(data)


class _Pseudo(dict):
    """A catalogue that writes every text in capitals."""

    def get(self, text, default=None):
        return re.sub(r"(\{\w+\})|([^{}]+)", lambda part: part[1] or part[2].upper(), text)


def test_no_text_of_a_page_is_left_untranslated(client, web, monkeypatch):
    """In a language of capitals, two small words in a row are a leak. Errors stay English."""
    monkeypatch.setattr(words, "catalogue", lambda language: _Pseudo())
    texts = {"model": "tiny", "family.name": "qwen", "adapter.name": "lora", "output": "runs/a"}
    texts |= {"data.0.path": "rows.jsonl", "stages.0.name": "sft"}
    made = Drafts(web.workspace.drafts).new(texts)
    (web.workspace.root / "rows.jsonl").write_text("{}\n")
    steps = [f"/new/{made.id}/{step}" for step in STEPS]
    leaks = []
    for path in [*(entry.path for entry in NAVIGATION), *steps]:
        answer = client.get(path)
        assert answer.status_code == 200, path
        page = _Texts()
        page.feed(answer.text)
        small = re.compile(r"\b[a-z]{2,} [a-z]{2,}\b")
        leaks += [f"{path}: {' '.join(text.split())}" for text in page.found if small.search(text)]
    assert not leaks, "\n".join(leaks)


def test_a_language_is_a_folder(tmp_path, monkeypatch):
    """Its name, tag and words are files: no line of code names it."""
    folder = tmp_path / "ja"
    folder.mkdir()
    (folder / "language.txt").write_text("日本語\nja\n", encoding="utf-8")
    (folder / "core.toml").write_text('[words]\n"Runs" = "実行"\n', encoding="utf-8")
    monkeypatch.setattr(words, "_FOLDER", tmp_path)
    assert list(words._languages()) == [("en", "English", "en"), ("ja", "日本語", "ja")]
    assert Words("ja")("Runs") == "実行"
    assert Words("ja")("Chat") == "Chat"
