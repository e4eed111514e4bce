"""From ids to text, without a model: here a byte is an id."""

import pytest

from tunewright_hf.inference.text import TextStream


def decode(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def pieces(text: str | bytes, *stop: str) -> tuple[list[str], TextStream]:
    stream = TextStream(decode, stop)
    given = []
    for token in text.encode() if isinstance(text, str) else text:
        given.append(stream.push(token))
        if stream.stopped:
            break
    return [*given, stream.finish()], stream


@pytest.mark.parametrize("text", ["plain", "naïve — 日本語 🙂!", "🙂", "", "a\ufffdb"])
def test_pieces_join_to_the_text_and_hold_whole_characters(text: str) -> None:
    given, _ = pieces(text)
    assert "".join(given) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in given)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    assert pieces("ab")[0] == ["a", "b", ""]
    assert pieces("aé")[0] == ["a", "", "é", ""]


def test_half_a_character_at_the_end_is_given_out() -> None:
    assert "".join(pieces("é".encode()[:1])[0]) == "\ufffd"


def test_a_stop_string_ends_the_text_and_none_of_it_slips_out() -> None:
    given, stream = pieces("Paris.\nUSER: and", "\nUSER:")
    assert stream.stopped
    assert "".join(given) == "Paris."


def test_the_beginning_of_a_stop_string_is_held_back_and_given_out_when_it_was_none() -> None:
    given, stream = pieces("a###b##", "###c")
    assert "".join(given) == "a###b##"
    assert not stream.stopped
    assert given[1:4] == ["", "", ""]  # one # after the other could have begun it
