"""Files that are not on this machine, through fsspec and its packages for each kind of store."""

import re
from typing import Any
from urllib.parse import unquote

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright_hf.models.hub import disable_telemetry

#: scheme → what pip installs for it
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp requests",
    "https": "aiohttp requests",
}
#: parameters of a query that give access to a file
_GIVES_ACCESS = re.compile(
    r"x-amz-|x-goog-|signature=|sig=|se=|sp=|[^=]*(?:token|key|secret|password|auth|credential)",
    re.IGNORECASE,
)
WEB = ("http", "https")  # single files: such a server lists nothing


def is_url(path: str) -> bool:
    return "://" in path


def shown(url: str) -> str:
    """The URL without what may be secret: user, password, and the query, which signs some."""
    return without_secrets(url).partition("?")[0] if is_url(url) else url


def without_secrets(url: str) -> str:
    """The URL without user and password, and without the parameters of its query that give access.
    What is no URL stays."""
    if not is_url(url):
        return url
    base, _, query = url.partition("#")[0].partition("?")
    scheme, _, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    if _user(url):
        host = host.rpartition("@")[2]
    kept = "&".join(part for part in query.split("&") if not _GIVES_ACCESS.match(part))
    return f"{scheme}://{host}{slash}{path}" + (f"?{kept}" if kept else "")


def _user(url: str) -> str:
    """User and password of a URL. In az://CONTAINER@ACCOUNT there is none."""
    scheme, _, rest = url.partition("://")
    user = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    return user if scheme.lower() in WEB or ":" in user else ""


def open_store(url: str, place: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Raises RecipeError where its package is
    missing."""
    scheme = url.partition("://")[0].lower()
    if "::" in url:
        raise RecipeError("found '::' in a URL, expected one that names a file itself", place=place)
    if scheme == "file":
        raise RecipeError(
            "found file://, expected the path of a file on this machine alone", place=place
        )
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in PACKAGES)
        hint = did_you_mean(scheme, PACKAGES) if len(scheme) > 1 else ""
        raise RecipeError(f"found {scheme}://, expected one of {known}", place=place, hint=hint)
    import fsspec

    if scheme == "hf":
        disable_telemetry()
    try:
        store, path = fsspec.url_to_fs(url)
    except ImportError as error:
        package = PACKAGES[scheme]
        raise RecipeError(
            f"{scheme}:// needs {package}", place=place, hint=f"pip install {package}"
        ) from error
    return store, path


def said(error: Exception, url: str) -> str:
    """What a library says in its error, in one line, without the secrets of the URL."""
    words = " ".join(str(error).replace(url, shown(url)).split())
    user = _user(url)
    for secret in (url.partition("?")[2], user, user.partition(":")[2]):
        for spelt in {secret, unquote(secret)} - {""}:
            words = words.replace(spelt, "***")
    return words[:300] or type(error).__name__


def failed(url: str, error: Exception, place: str) -> RecipeError:
    """The line for what a store's own library raised. Its words may hold the URL with its
    secrets."""
    return RecipeError(f"{shown(url)} cannot be read: {said(error, url)}", place=place)
