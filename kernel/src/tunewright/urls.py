"""Secrets in URLs: nothing that is written or printed may hold them."""

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*\Z")  # fsspec chains them: simplecache::s3://
_WEB = re.compile(r"https?\Z", re.IGNORECASE)  # there, a user alone may be a token
#: parameters of a query that give access to what the URL names
_GIVES_ACCESS = re.compile(
    r"x-amz-|x-goog-|signature=|sig=|se=|sp=|[^=]*(?:token|key|secret|password|auth|credential)",
    re.IGNORECASE,
)
_MASKED = "***"


def is_url(text: str) -> bool:
    """Whether the text begins with a scheme, such as https://."""
    scheme, separator, _ = text.partition("://")
    return bool(separator and _SCHEME.match(scheme))


def url_user(url: str) -> str:
    """User and password of a URL, as they are written. az://CONTAINER@ACCOUNT has none."""
    scheme, _, rest = url.partition("://")
    user = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    return user if _WEB.search(scheme) or ":" in user else ""


def mask_url(text: str) -> str:
    """The text; where it is a URL, with `***` for user and password, and for the values of query
    parameters that give access, and without its fragment."""
    if not is_url(text):
        return text
    base, mark, query = text.partition("#")[0].partition("?")
    if user := url_user(text):
        base = base.replace(f"{user}@", f"{_MASKED}@", 1)
    masked = (
        f"{part.partition('=')[0]}={_MASKED}" if _GIVES_ACCESS.match(part) else part
        for part in query.split("&")
    )
    return base + mark + "&".join(masked)
