"""An HTTP proxy on loopback that lets a test act at each request on its way to a server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """One request before it is passed on."""

    method: str
    path: str
    body: bytes

    @property
    def moves_alias(self) -> bool:
        """Whether it sets an alias."""
        return self.method == "POST" and self.path.endswith("/registered-models/alias")

    @property
    def notes_intent(self) -> bool:
        """Whether it writes the note of a move."""
        return self.path.endswith("/registered-models/set-tag")


Act = Callable[[Request], int | None]
"""What a test does at a request: gives None to pass it on, or a status to answer instead."""


@contextmanager
def intercepting(upstream: str, act: Act) -> Iterator[str]:
    """Pass requests on to `upstream`, calling `act` with each first; gives the proxy's address."""
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = act(Request(self.command, self.path.split("?")[0], body))
            if status is not None:
                self._answer(status, b'{"error_code": "PERMISSION_DENIED", "message": "no"}')
                return
            headers = {
                key: value
                for key, value in self.headers.items()
                if key.lower() not in {"connection", "accept-encoding"}
            }
            connection = HTTPConnection(target)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self._answer(answer.status, content, answer.getheader("Content-Type"))

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815  # their names

        def _answer(
            self, status: int, content: bytes, kind: str | None = "application/json"
        ) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind or "application/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # who asked was killed

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # their name
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
