"""Files in `data:` URLs."""

import binascii
import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from tunewright import RowError
from tunewright_hf.media.files import MAX_BYTES

__all__ = ["of_url"]

_URL = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)(?P<more>(?:;[\w.+-]+=[\w.+-]*)*)(?P<base64>;base64)?,"
)
_SPACE = re.compile(r"\s+")


def of_url(url: str, kind: str) -> bytes:
    """Content of a data: URL. Raises RowError if it is not one of this kind of media, is larger
    than a file may be, or its base64 is not whole."""
    head = _URL.match(url)
    if head is None or not head["type"].startswith(f"{kind}/"):
        raise RowError(f"{kind} {url[:30]!r} is no data: URL of type {kind}/…")
    # of base64, 4 characters are 3 bytes; a line end in each 57 bytes is usual
    if len(url) - head.end() > 1.5 * MAX_BYTES[kind]:
        limit = f"{MAX_BYTES[kind] >> 20:,} MiB"
        raise RowError(f"{kind} in a data: URL of {len(url):,} characters is larger than {limit}")
    body = url[head.end() :]
    try:
        # line ends are common in base64, and mean nothing
        data = (
            b64decode(_SPACE.sub("", body), validate=True)
            if head["base64"]
            else unquote_to_bytes(body)
        )
    except (binascii.Error, ValueError) as error:
        raise RowError(f"{kind} in a data: URL is not valid base64: {error}") from error
    if not data:
        raise RowError(f"{kind} in a data: URL is empty")
    return data
