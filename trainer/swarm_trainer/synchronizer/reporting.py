"""Report and metrics over HTTP, from a thread of their own: a slow reader holds nothing up."""

import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from swarm_api import env

_READER_SECONDS = 10.0
"""Of a reader that says nothing."""


class ReportServer:
    """Serves /report (with the token), /metrics and /healthz."""

    def __init__(self, host: str, port: int, token: str, registry: CollectorRegistry) -> None:
        self._report = b"{}"
        self._final = False
        self.read_to_the_end = threading.Event()
        """Set when a reader has had the final report."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _READER_SECONDS

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(200, b"ok\n", "text/plain")
                elif self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path != "/report":
                    self._answer(404, b"try /report, /metrics or /healthz\n", "text/plain")
                elif not hmac.compare_digest(self._token(), token.encode()):
                    self._answer(403, f"{env.REPORT_TOKEN_HEADER} is missing or wrong\n".encode(), "text/plain")
                else:
                    final = outer._final
                    self._answer(200, outer._report, "application/json")
                    if final:
                        outer.read_to_the_end.set()

            def _token(self) -> bytes:
                return self.headers.get(env.REPORT_TOKEN_HEADER, "").encode()

            def _answer(self, code: int, body: bytes, kind: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                del format, args

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="report", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return str(self._server.server_address[0]), int(self._server.server_address[1])

    def publish(self, report: bytes, *, final: bool = False) -> None:
        """What /report answers from now on; final: nothing will follow."""
        self._report, self._final = report, final

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
