"""The truth file: what each invented session truly watched, to hold computed figures against."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from producer.session import Session
from retention_platform.errors import RetentionError


class TruthFile:
    """JSON lines, one a session of which a message was sent. Use as a context manager.

    A session is written when its last message is sent; one that is cut off, at the end, with what was sent of it.
    Raises RetentionError when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise RetentionError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
        self._going: dict[str, tuple[Session, list[bytes]]] = {}

    def __enter__(self) -> TruthFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            for session, sent in self._going.values():
                self._file.write(session.truth(sent) + b"\n")

    def note(self, session: Session, message: bytes) -> None:
        """One more message of the session was sent."""
        _, sent = self._going.setdefault(session.session_id, (session, []))
        sent.append(message)
        if len(sent) == len(session.messages):
            del self._going[session.session_id]
            self._file.write(session.truth() + b"\n")
