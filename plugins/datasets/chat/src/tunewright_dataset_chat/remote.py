"""Files that are not on this machine, through fsspec and its packages for each kind of store."""

from typing import Any
from urllib.parse import urlsplit

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
WEB = ("http", "https")  # single files: such a server lists nothing


def is_url(path: str) -> bool:
    return "://" in path


def shown(url: str) -> str:
    """The URL without what may be secret: user, password, and the query, which signs some."""
    if not is_url(url):
        return url
    scheme, host, path, _, _ = urlsplit(url)
    user, at, machine = host.rpartition("@")
    secret = scheme in WEB or ":" in user
    return f"{scheme}://{machine if secret else user + at + machine}{path}"


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


def failed(url: str, error: Exception, place: str) -> RecipeError:
    """The line for what a store's own library raised. Its words may hold the URL with its
    secrets."""
    said = " ".join(str(error).replace(url, shown(url)).split()) or type(error).__name__
    return RecipeError(f"{shown(url)} cannot be read: {said[:300]}", place=place)
