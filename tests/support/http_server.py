"""A web server on this machine that knows ranges, counts, and fails when told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """What a server was asked for, and how it shall behave.

    Attributes:
        url: address of the folder, without a slash at its end.
        failures: answer this many requests for file content with 503 before serving any.
        status: answer every request with this status, unless it is 200.
        requests: count of requests by name of the file.
        bytes: bytes of content sent, by name of the file.
        ranges: (first, last) of every range sent.
    """

    url: str = ""
    failures: int = 0
    status: int = 200
    requests: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def forget(self) -> None:
        self.requests.clear()
        self.bytes.clear()
        self.ranges.clear()


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests at 127.0.0.1, and give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Serve the files of a folder at 127.0.0.1."""
    served = Served()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET(head=True)

        def do_GET(self, head: bool = False) -> None:
            name = self.path.partition("?")[0].lstrip("/")
            with lock:
                served.requests[name] += 1
                fail = served.failures > 0
                served.failures -= fail
            path = folder / name
            if served.status != 200:
                return self.answer(served.status, b"no", head=head)
            if fail:
                return self.answer(503, b"busy", head=head)
            if not path.is_file():
                return self.answer(404, b"none", head=head)
            content = path.read_bytes()
            asked = self.headers.get("Range")
            if not asked:
                return self.answer(200, content, name, head=head)
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(content)), len(content) - 1) + 1
            if start >= len(content):
                return self.answer(416, b"", head=head)
            with lock:
                served.ranges.append((start, stop - 1))
            span = f"bytes {start}-{stop - 1}/{len(content)}"
            return self.answer(206, content[start:stop], name, span=span, head=head)

        def answer(
            self, status: int, content: bytes, name: str = "", *, span: str = "", head: bool
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            if span:
                self.send_header("Content-Range", span)
            self.end_headers()
            if head:
                return
            if name:
                with lock:
                    served.bytes[name] += len(content)
            with suppress(BrokenPipeError, ConnectionResetError):  # the reader had enough
                self.wfile.write(content)

    with listening(Handler) as served.url:
        yield served
