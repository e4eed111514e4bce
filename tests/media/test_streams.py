"""Videos and audio are measured by their headers, and decoded within limits."""

import struct
from pathlib import Path

import numpy as np
import pytest

from media.samples import encoded, tone, video, wav
from shared import SHARED
from tunewright import RowError
from tunewright_hf.media import streams
from tunewright_hf.media.decode import decode, measure
from tunewright_hf.media.shapes import RATE, Shape

pytest.importorskip("av", reason="reads videos and audio")
DEMO = SHARED / "data" / "mllm_demo_data"
demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"reads {DEMO}")


# ---- video ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.mov"])
def test_a_video_is_measured_and_its_frames_are_found(tmp_path: Path, name: str) -> None:
    path = video(tmp_path / name, 20, (64, 48), 10)
    assert measure("video", path) == Shape("video", 64, 48, frames=20, fps=10.0)
    found = decode("video", path, (0, 7, 19))
    assert (found.shape, found.dtype) == ((3, 48, 64, 3), np.uint8)
    assert np.abs(found.mean((1, 2, 3)) - [0, 70, 190]).max() < 6
    assert decode("video", path).shape == (20, 48, 64, 3)


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_a_video_is_turned_upright(tmp_path: Path, turn: int) -> None:
    path = video(tmp_path / "a.mp4", 3, (64, 48), turn=turn)
    found, shape = decode("video", path, (0,))[0], measure("video", path)
    assert found.shape[:2] == (shape.height, shape.width)
    assert (shape.width, shape.height) == ((64, 48) if turn == 180 else (48, 64))
    # the left half is red as it is stored; a turn by +90 is against the clock
    red = {90: found[-1, 24], -90: found[0, 24], 180: found[24, -1]}[turn]
    other = {90: found[0, 24], -90: found[-1, 24], 180: found[24, 0]}[turn]
    assert red[0] > 180 and other[0] < 60


def test_a_video_that_ends_too_early(tmp_path: Path) -> None:
    path = Path(video(tmp_path / "a.mkv", 20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RowError, match=r"video 'a\.mkv' ends after 1 frames, and frame 20 is used"):
        decode("video", str(path), (0, 19))
    path = Path(video(tmp_path / "a.mp4", 20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RowError, match=r"video 'a\.mp4' cannot be read"):
        measure("video", str(path))


def test_limits_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.mp4", 20, (64, 48))
    monkeypatch.setattr(streams, "MAX_DECODED", 64 * 48 * 5)
    assert len(decode("video", path, range(5))) == 5
    with pytest.raises(RowError, match=r"video 'a\.mp4': the frames that are used have more than"):
        decode("video", path, range(6))
    monkeypatch.setattr(streams, "MAX_FRAMES", 19)
    with pytest.raises(RowError, match=r"video 'a\.mp4' has more than 19 frames"):
        measure("video", path)
    monkeypatch.setattr(streams, "MAX_PIXELS", 100)
    for read in (measure, decode):
        with pytest.raises(RowError, match=r"video 'a\.mp4' has frames of 64 x 48 pixels"):
            read("video", path)


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ffconcat", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{}\n#EXT-X-ENDLIST\n"),
        ("a.mpd", '<?xml version="1.0"?><MPD><BaseURL>file://{}</BaseURL></MPD>'),
        ("a.sdp", "v=0\nm=video 5004 RTP/AVP 96\nc=IN IP4 127.0.0.1\n"),
        ("a.mp4", "text"),
    ],
)
def test_files_that_name_other_files_are_not_read(
    tmp_path: Path, kind: str, name: str, text: str
) -> None:
    """FFmpeg opens such a script as a video: what it names would be trained on."""
    secret = video(tmp_path / "secret.mp4", 3)
    (tmp_path / name).write_text(text.format(secret))
    for read in (measure, decode):
        with pytest.raises(RowError, match=rf"{kind} '{name}' cannot be read"):
            read(kind, str(tmp_path / name))  # type: ignore[arg-type]


def test_a_file_of_the_other_kind(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"audio 'a\.mp4' has no audio in it"):
        measure("audio", video(tmp_path / "a.mp4", 3))
    with pytest.raises(RowError, match=r"video 'a\.wav' cannot be read"):
        measure("video", wav(tmp_path / "a.wav"))


# ---- audio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_counted_and_resampled(tmp_path: Path, rate: int, channels: int) -> None:
    path = wav(tmp_path / "a.wav", 0.5, rate, channels)
    assert measure("audio", path) == Shape("audio", samples=RATE // 2)
    found = decode("audio", path)
    assert (found.shape, found.dtype) == ((RATE // 2,), np.float32)
    middle = slice(1000, 7000)
    assert np.abs(found - tone(0.5, RATE))[middle].max() < 0.02


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.m4a", "aac")]
)
def test_compressed_audio_has_as_many_samples_as_measured(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = encoded(tmp_path / name, codec)
    shape, found = measure("audio", path), decode("audio", path)
    assert found.shape == (shape.samples,)
    assert abs(shape.samples - RATE / 2) < 0.1 * RATE
    assert 0.3 < np.abs(found[2000:6000]).max() < 0.6


def test_audio_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(wav(tmp_path / "a.wav"))
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 0xFFFFFFF0)  # a header that claims 37 hours: not believed
    long = tmp_path / "long.wav"
    long.write_bytes(data)
    assert measure("audio", str(long)).samples == RATE // 2
    monkeypatch.setattr(streams, "MAX_SECONDS", 0.2)
    for read in (measure, decode):
        with pytest.raises(RowError, match=r"audio 'a\.wav' is longer than 0\.2 seconds"):
            read("audio", str(path))
    path = Path(encoded(tmp_path / "a.mp3", "libmp3lame"))
    with pytest.raises(RowError, match=r"audio 'a\.mp3' is longer than 0\.2 seconds"):
        measure("audio", str(path))


# ---- files of others -----------------------------------------------------------------------------


@demo
@pytest.mark.parametrize("name", ["1.mp4", "2.avi", "3.mp4", "4.mp4"])
def test_demo_videos(name: str) -> None:
    shape = measure("video", str(DEMO / name))
    found = decode("video", str(DEMO / name), (0, shape.frames - 1))
    assert found.shape == (2, shape.height, shape.width, 3)


@demo
@pytest.mark.parametrize(
    ("name", "seconds"), [("1.mp3", 4.032), ("2.wav", 2.9013), ("3.flac", 5.855), ("4.mp3", 5.0)]
)
def test_demo_audio(name: str, seconds: float) -> None:
    shape = measure("audio", str(DEMO / name))
    assert shape.samples == pytest.approx(seconds * RATE, abs=16)
    assert decode("audio", str(DEMO / name)).shape == (shape.samples,)
