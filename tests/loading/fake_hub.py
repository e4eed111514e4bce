"""A hub with one repository, a/b, that speaks as much of the hub's protocol as snapshot_download
needs."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


class FakeHub:
    """files: what a/b holds; asked: the paths of all requests so far; endless: a file that is never
    sent to its end, flows: set when it is asked for."""

    def __init__(self, files: dict[str, bytes], port: int) -> None:
        self.files, self.url, self.asked = files, f"http://127.0.0.1:{port}", list[str]()
        self.endless, self.flows = "", threading.Event()

    def drip(self, write: Callable[[bytes], object]) -> None:
        with contextlib.suppress(OSError):  # until the other side has enough
            while True:
                write(bytes(2**20))
                self.flows.set()
                time.sleep(0.02)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        name = path.partition(f"/a/b/resolve/{COMMIT}/")[2]
        if name in self.files:
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}, self.files[name]
        if path == "/api/models/a/b/revision/main":
            listing = [{"rfilename": file} for file in self.files]
            return 200, {}, json.dumps({"id": "a/b", "sha": COMMIT, "siblings": listing}).encode()
        if path.startswith(f"/api/models/a/b/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": f, "oid": f, "size": len(data)}
                for f, data in self.files.items()
            ]
            return 200, {}, json.dumps(tree).encode()
        if path.startswith("/api/models/a/b/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if path.startswith("/api/models/a/gated"):
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


@contextmanager
def fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, headers, body = hub.answer(self.path)
            self.send_response(code)
            endless = bool(hub.endless) and self.path.endswith(hub.endless)
            length = 2**32 if endless else len(body)
            for name, value in (headers | {"Content-Length": str(length)}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                hub.drip(self.wfile.write) if endless else self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = FakeHub(files, server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()
