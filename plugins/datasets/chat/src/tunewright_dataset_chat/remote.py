"""Remote files, through fsspec and its package for each type of store."""

from typing import Any
from urllib.parse import unquote

from tunewright import RecipeError
from tunewright.errors import did_you_mean
from tunewright.urls import is_url, mask_url, url_user
from tunewright_hf.models.hub import disable_telemetry

#: scheme → its pip requirement
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
WEB = ("http", "https")  # single files only: servers do not list folders


def shown(url: str) -> str:
    """The URL without possible secrets: user, password, and the query, which may contain a
    signature."""
    return mask_url(url).partition("?")[0] if is_url(url) else url


def open_store(url: str, place: str) -> tuple[Any, str]:
    """fsspec file system of a URL, and the path in it. Raises RecipeError if its package is
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
    """A library's error in one line, without the secrets of the URL."""
    words = " ".join(str(error).replace(url, shown(url)).split())
    user = url_user(url)
    for secret in (url.partition("?")[2], user, user.partition(":")[2]):
        for spelt in {secret, unquote(secret)} - {""}:
            words = words.replace(spelt, "***")
    return words[:300] or type(error).__name__


def failed(url: str, error: Exception, place: str) -> RecipeError:
    """Error for an exception of a store's library, whose message may contain the URL with its
    secrets."""
    return RecipeError(f"{shown(url)} cannot be read: {said(error, url)}", place=place)
