"""Catalogues: every text of the pages is translated, and nothing else stands in them.

Check 49 of the report.
"""

import re
import tomllib
from collections import Counter

import pytest

import web_strings as strings
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
