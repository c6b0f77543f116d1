"""An HTTP proxy in front of an object store that counts requests and can make them go wrong."""

from __future__ import annotations

import http.client
import http.server
import os
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Headers = list[tuple[str, str]]
Kind = Literal["reply", "latency", "hang", "reset", "truncate", "stall", "corrupt", "encrypted"]
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
NOT_FORWARDED = {"connection", "expect", "keep-alive", "transfer-encoding"}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Fault:
    """What goes wrong, and where.

    Attributes:
        kind: `reply` answers with `status` and `code` itself; `latency` waits `seconds` first;
            `hang` never answers; `reset` cuts the connection; `truncate` cuts the body in the
            middle, `stall` stops sending there without a word; `corrupt` flips one byte there, and
            `encrypted` too, and says that the ETag is no MD5, since a key was used.
        match: Regular expression that finds `LIST /bucket?...`, `GET /bucket/key`, `PUT ...`.
        times: How often; always where None.
        share: Share of the matching requests, drawn from a fixed seed.
        injected: How often it has been done.
    """

    kind: Kind
    match: str = ""
    times: int | None = None
    share: float = 1.0
    seconds: float = 0.05
    status: int = 503
    code: str = "SlowDown"
    injected: int = 0
    _draws: random.Random = field(default_factory=lambda: random.Random(0), repr=False)

    def hits(self, request: str) -> bool:
        """Decide for one request, and count."""
        if self.times is not None and self.injected >= self.times:
            return False
        if not re.search(self.match, request):
            return False
        if self._draws.random() >= self.share:
            return False
        self.injected += 1
        return True


class FaultProxy:
    """Forwards to one upstream server; each test has its own.

    Signatures stay valid, since the Host header is passed on as the client sent it.

    Attributes:
        endpoint: URL to give to clients.
        faults: Applied to each request, the first that hits; edit it at any time.
        counts: Requests by kind: LIST, GET, HEAD, PUT, POST, DELETE.
        ask: Changes the path and query of each request that is forwarded, for a server that knows
            less than the one behind.
        answer: Changes headers and body of each answer likewise.
        requests: All of them in order, as `GET /bucket/key`.
        open_connections: Connections of clients at this moment.
        peak_connections: The most there ever were at once.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        self.ask: Callable[[str], str] = lambda target: target
        self.answer: Callable[[Headers, bytes], tuple[Headers, bytes]] = lambda *reply: reply
        self.requests: list[str] = []
        self.open_connections = self.peak_connections = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, kind: Kind, match: str = "", **settings) -> Fault:
        """Add a fault and return it, so that a test can see how often it was injected."""
        fault = Fault(kind, match, **settings)
        self.faults.append(fault)
        return fault

    def reset_counts(self) -> None:
        """Forget what was counted so far."""
        with self.lock:
            self.counts.clear()
            self.requests.clear()
            self.peak_connections = self.open_connections

    def stop(self) -> None:
        """Stop listening, and let hanging requests go."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def connected(self, change: int) -> None:
        """Count a connection that opened or closed."""
        with self.lock:
            self.open_connections += change
            self.peak_connections = max(self.peak_connections, self.open_connections)

    def fault_for(self, method: str, target: str) -> Fault | None:
        """Count a request and return the fault that hits it, if one does."""
        is_list = method == "GET" and re.search(r"[?&](list-type|prefix|max-keys)=", target)
        kind = "LIST" if is_list else method
        request = f"{kind} {target}"
        with self.lock:
            self.counts[kind] += 1
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.hits(request)), None)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    proxy: FaultProxy

    def handle_error(self, request, client_address) -> None:
        """Say nothing: clients that go away are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.proxy = self.server.proxy
        self.proxy.connected(1)
        self.upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=60)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.upstream.close()
            self.proxy.connected(-1)

    def log_message(self, *args) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        proceed = super().handle_expect_100()
        self.wfile.flush()  # the client sends no body before it has read this
        return proceed

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.fault_for(self.command, self.path)
        if fault is None:
            self.send(*self.ask(body))
        elif fault.kind == "reply":
            content = ERROR.format(fault.code).encode()
            self.send(fault.status, [("Content-Type", "application/xml")], content)
        elif fault.kind == "latency":
            self.proxy.stopped.wait(fault.seconds)
            self.send(*self.ask(body))
        elif fault.kind in ("hang", "reset"):
            self.cut(hang=fault.kind == "hang")
        else:
            self.spoil(fault, *self.ask(body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return what the upstream server answers: status, headers and body."""
        target = self.proxy.ask(self.path)
        self.upstream.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in NOT_FORWARDED:
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body)
        reply = self.upstream.getresponse()
        content = reply.read()
        headers = [pair for pair in reply.getheaders() if pair[0].lower() not in NOT_FORWARDED]
        headers, changed = self.proxy.answer(headers, content)
        if changed != content:
            headers = [pair for pair in headers if pair[0].lower() != "content-length"]
        return reply.status, headers, changed

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def send_head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        known = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in known and status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def spoil(self, fault: Fault, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        middle = len(body) // 2
        if fault.kind in ("corrupt", "encrypted"):
            if fault.kind == "encrypted":
                headers = [*headers, ("x-amz-server-side-encryption", "aws:kms")]
            changed = bytearray(body)
            changed[middle] ^= 1
            self.send(status, headers, bytes(changed))
            return
        self.send_head(status, headers, len(body))
        self.wfile.write(body[:middle])
        self.wfile.flush()
        if fault.kind == "stall":
            self.proxy.stopped.wait()
        self.close_connection = True

    def cut(self, *, hang: bool) -> None:
        if hang:
            self.proxy.stopped.wait()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        os.close(self.connection.detach())  # a plain close waits for the streams on top of it
        self.close_connection = True
