"""A web server on this machine that can break off, ignore ranges, and tell what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served, and how.

    Attributes:
        files: content by path.
        break_after: bytes of a body after which the connection is closed.
        ranges: whether range requests are answered.
        tell: whether size and version are told.
        version: entity tag.
        asked: method, path and range of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: int | None = None
    ranges: bool = True
    tell: bool = True
    version: str = '"1"'
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Site]:
    """Serve on a free port until the end."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer()[: site.break_after])

        def answer(self) -> bytes:
            """Send the head; returns the body."""
            wanted = self.headers["Range"]
            site.asked.append((self.command, self.path, wanted))
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return b""
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if site.tell:
                self.send_header("Content-Length", str(len(body) - start))
                self.send_header("ETag", site.version)
            self.end_headers()
            return body[start:]

        def log_message(self, *_arguments: object) -> None:
            """Nothing on the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
