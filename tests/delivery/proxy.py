"""A TCP proxy that a test can make misbehave: refuse, cut, swallow what comes back after the other has acted, answer in
the other's place with an HTTP error, or not at all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Proxy:
    """Between clients and ``target``; on a port of its own. Use as a context manager."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.target_port = target_port
        #: Connections are closed as soon as they come.
        self.refusing = False
        #: Every request is answered with this HTTP status, and the other side never hears of it; 0: not so.
        self.status = 0
        #: Connections are taken and nothing is ever answered on them.
        self.silent = False
        #: The other side acts, and none of its answers comes through: connections stay open and still for ever.
        self.mute = False
        #: Answers of the other side to INSERTs are swallowed and the connection is cut: so many from now on.
        self.swallow = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        #: How often each kind of misbehaviour met somebody.
        self.swallowed = self.answered = self.ignored = self.muted = 0

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection there is."""
        with self._lock:
            sockets, self._open = list(self._open), set()
        for one in sockets:
            _close(one)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                _close(client)
                continue
            if self.silent or self.status:
                with self._lock:
                    self._open.add(client)
                threading.Thread(target=self._instead, args=(client,), daemon=True).start()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), 5)
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            inserts = threading.Event()
            threading.Thread(target=self._pump, args=(client, server, inserts, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, inserts, True), daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, inserts: threading.Event, answers: bool) -> None:
        """Pass on what comes; ``inserts`` is set while the connection's request under way is an INSERT."""
        with contextlib.suppress(OSError):
            still = False
            while data := source.recv(1 << 16):
                if not answers and b" HTTP/1.1\r\n" in data:
                    inserts.clear()
                if not answers and b"insert into " in data:
                    inserts.set()
                if answers and self.mute:
                    self.muted += 1
                    still = True
                if still:
                    continue
                if answers and inserts.is_set() and self._swallows():
                    break
                to.sendall(data)
        with self._lock:
            self._open -= {source, to}
        _close(source)
        _close(to)

    def _instead(self, client: socket.socket) -> None:
        """Answer with the status, or never, and read on until the client has had enough: its request may be long."""
        status, text = self.status, b"the proxy of the test says no\n"
        with contextlib.suppress(OSError):
            if client.recv(1 << 16):
                if status:
                    head = f"HTTP/1.1 {status} Out of order\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                    client.sendall(head.encode() + text)
                    self.answered += 1
                else:
                    self.ignored += 1
                while client.recv(1 << 16):
                    pass
        with self._lock:
            self._open.discard(client)
        _close(client)

    def _swallows(self) -> bool:
        with self._lock:
            if self.swallow <= 0:
                return False
            self.swallow -= 1
            self.swallowed += 1
            return True


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
