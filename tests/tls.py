"""Self-made certificates, and a TLS end in front of a plain server, for tests of encrypted connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path


class Authority:
    """A certificate authority in a folder, with one certificate for 127.0.0.1 that it signed (openssl makes both)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        ca_key, request, extensions = folder / "ca.key", folder / "server.csr", folder / "server.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="utf-8")
        new = ("-newkey", "rsa:2048", "-nodes", "-keyout")
        _openssl("req", "-x509", *new, ca_key, "-out", self.ca, "-days", "2", "-subj", "/CN=authority of a test")
        _openssl("req", *new, self.key, "-out", request, "-subj", "/CN=127.0.0.1")
        signed = ("-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", self.cert, *signed)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def in_front_of(port: int, authority: Authority) -> Iterator[int]:
    """The port of a TLS end that hands everything on to ``port``, in the clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert, authority.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield int(listener.getsockname()[1])


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, context, port), daemon=True).start()


def _serve(client: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """One connection. Each direction has its own thread, which an SSL socket allows for reading beside writing."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as both:
        secured = both.enter_context(context.wrap_socket(client, server_side=True))
        server = both.enter_context(socket.create_connection(("127.0.0.1", port)))
        back = threading.Thread(target=_copy, args=(server, secured), daemon=True)
        back.start()
        _copy(secured, server)
        back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)
