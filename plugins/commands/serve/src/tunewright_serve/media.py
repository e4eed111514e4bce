"""Images, videos and audio in messages: `data:` URLs, and addresses on hosts of a list."""

from collections.abc import Collection, Sequence
from typing import Literal

from tunewright.inference import Feature
from tunewright.types import MediaPart, Part, TextPart
from tunewright_serve.errors import ApiError
from tunewright_serve.fetching import allowed
from tunewright_serve.wire import WirePart

__all__ = ["MEDIA", "content_of"]

Kind = Literal["image", "video", "audio"]
#: features of an engine whose model takes media, and the kind of each
MEDIA: dict[Feature, Kind] = {"images": "image", "videos": "video", "audio": "audio"}
_KINDS: dict[str, Kind] = {"image_url": "image", "video_url": "video", "input_audio": "audio"}


def content_of(
    content: str | Sequence[WirePart] | None,
    place: str,
    features: Collection[Feature],
    hosts: Collection[str] = (),
) -> str | list[Part]:
    """The content of a message: text, or parts where there is a medium. features: of the engine.
    hosts: from which media may be fetched, later. Raises ApiError, with the same text whatever a
    URL holds."""
    if content is None or isinstance(content, str):
        return content or ""
    found = [_part(part, place, features, hosts) for part in content]
    texts = [part.text for part in found if isinstance(part, TextPart)]
    return "".join(texts) if len(texts) == len(found) else found


def _part(
    part: WirePart, place: str, features: Collection[Feature], hosts: Collection[str]
) -> Part:
    if part.type in ("text", "refusal"):
        if part.text is None and part.refusal is None:
            raise ApiError(f"{place}: a part of type text has no text", param="messages")
        return TextPart(part.text or part.refusal or "")
    kind = _KINDS[part.type]
    taken = [each for each, its in MEDIA.items() if each in features]
    if kind not in (MEDIA[each] for each in taken):
        names = " and ".join(["text", *taken]) if taken else "text only"
        problem = f"{place}: this server takes {names}, and no {part.type}"
        raise ApiError(problem, param="messages")
    url = _url(part)
    if not (url.startswith(f"data:{kind}/") or allowed(url, hosts)):
        fetched = (
            f"fetched from {', '.join(sorted(hosts))} alone" if hosts else "nothing is fetched"
        )
        problem = f"{place}: {part.type} is to be a data: URL of type {kind}/…; {fetched}"
        raise ApiError(problem, param="messages")
    return MediaPart(kind, url)


def _url(part: WirePart) -> str:
    if part.type == "input_audio":
        sound = part.input_audio
        return f"data:audio/{sound.format};base64,{sound.data}" if sound else ""
    found = part.image_url if part.type == "image_url" else part.video_url
    return found if isinstance(found, str) else found.url if found else ""
