"""Media that requests name by address: fetched from hosts on a list, within limits.

What is asked for decides nothing but the path: the host is one that the operator named, its
addresses are public ones and the connection goes to the address that was checked, redirects are
refused, and size and time are limited.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import replace
from urllib.parse import SplitResult, urlsplit

from tunewright.types import Conversation, MediaPart
from tunewright_serve.errors import ApiError

__all__ = ["allowed", "checked_host", "with_media"]

MAX_BYTES = 32 * 2**20  # of a file that is fetched
MAX_SECONDS = 20.0  # for all of it
MAX_FILES = 16  # that a request may name
_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[!-\[\]-~]*)?", re.IGNORECASE)
_HOST = re.compile(r"(?=.*[a-z])[a-z0-9-]+(\.[a-z0-9-]+)*(:\d{1,5})?")
#: IPv6 networks that hold IPv4 addresses: NAT64, 6to4, Teredo
_WRAPPING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))


def checked_host(given: str) -> str:
    """A host of the list, as `allowed` compares it. Raises ValueError unless it is a name, with or
    without a port."""
    found = given.strip().lower()
    if not _HOST.fullmatch(found):
        raise ValueError(f"expected a host such as images.example.com, found {given!r:.80}")
    return found


def allowed(url: str, hosts: Collection[str]) -> bool:
    """Whether the address is one of http or https on a host of the list, in plain form."""
    if not hosts or not _PLAIN.fullmatch(url):
        return False
    parts = urlsplit(url)
    return parts.netloc.lower() in hosts


def with_media(conversation: Conversation, hosts: Collection[str]) -> None:
    """Put the files in place of the addresses of a conversation's media. Raises ApiError."""
    wanted = [
        (message.content, place, part)
        for message in conversation.messages
        if isinstance(message.content, list)
        for place, part in enumerate(message.content)
        if isinstance(part, MediaPart) and part.path and not part.path.startswith("data:")
    ]
    if len(wanted) > MAX_FILES:
        problem = f"messages: {len(wanted)} files are to be fetched, more than {MAX_FILES}"
        raise ApiError(problem, param="messages")
    for content, place, part in wanted:
        if not allowed(part.path, hosts):  # no file of the server is opened
            raise ApiError("messages: a medium is no data: URL", param="messages")
        content[place] = replace(part, path="", data=_fetched(urlsplit(part.path)))


def _fetched(url: SplitResult) -> bytes:
    host = url.hostname or ""
    try:
        port = url.port or _PORTS[url.scheme]
        address = _public_address(host, port)
        plain = socket.create_connection((address, port), timeout=MAX_SECONDS)
        with closing(_secured(plain, host) if url.scheme == "https" else plain) as own:
            # the end of all, however slowly bytes come
            is_late = threading.Event()
            timer = threading.Timer(MAX_SECONDS, _end, [own, is_late])
            timer.start()
            try:
                data = _read(url, host, port, own)
            finally:
                timer.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _refused(host, "cannot be fetched") from error
    if is_late.is_set():  # what came looks like a whole file where its length was not given
        raise _refused(host, f"took more than {MAX_SECONDS:g} seconds")
    return data


def _end(own: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with suppress(OSError):  # it has ended by itself
        own.shutdown(socket.SHUT_RDWR)


def _secured(plain: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    return context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)


def _read(url: SplitResult, host: str, port: int, own: socket.socket) -> bytes:
    if isinstance(own, ssl.SSLSocket):
        own.do_handshake()
    connection = http.client.HTTPConnection(host, port)
    connection.sock = own
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection.request("GET", target, headers={"Accept-Encoding": "identity"})
    with connection.getresponse() as answer:
        if answer.status != 200:  # redirects too
            raise _refused(host, f"answered with status {answer.status}")
        if answer.getheader("Content-Encoding", "identity").lower() != "identity":
            raise _refused(host, "sent a compressed answer")
        expected = answer.length
        if (expected or 0) > MAX_BYTES:
            raise _refused(host, f"sent more than {MAX_BYTES >> 20} MiB")
        data = answer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _refused(host, f"sent more than {MAX_BYTES >> 20} MiB")
    if not data or len(data) < (expected or 0):
        raise _refused(host, "sent no whole file")
    return data


def _public_address(host: str, port: int) -> str:
    """The first address of a host, of which all must be public. Raises ApiError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(place[0]) for *_, place in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _refused(host, "has an address that is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and holds no other one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found.teredo or any(found in network for network in _WRAPPING):
            return False
    return found.is_global and not found.is_multicast


def _refused(host: str, problem: str) -> ApiError:
    return ApiError(f"messages: {host} {problem}", param="messages")
