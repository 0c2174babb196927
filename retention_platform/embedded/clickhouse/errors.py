"""The engine's exceptions as a server tells them: code, text and HTTP status."""

from __future__ import annotations

import re

# A connection that the engine itself makes fails by a kind of its own.
_CODE = re.compile(r"Code: (\d+)\. DB::(?:Net)?Exception: ")
_PATH = re.compile(r": \(in file/uri [^)]*\)")
# The engine may tell an exception within one: code and version come again.
_VERSION = re.compile(r"(?: \(version [^)]*\)(?:\. \([A-Z0-9_]+\))?)+$")

#: Exception code to HTTP status, as the server maps them; everything else is 500.
_STATUS = {
    **dict.fromkeys((194,), 401),
    **dict.fromkeys((192, 193, 497, 512, 516), 403),
    **dict.fromkeys((6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123), 400),
    **dict.fromkeys((167, 168, 223, 321, 376, 427, 441, 675, 676), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511), 404),
    **dict.fromkeys((76, 209, 439), 503),
    159: 408,
    229: 413,
    381: 411,
    779: 415,
    48: 501,
}


#: How the engine refuses a statement that is no reading one.
NOT_TO_WRITE = "Cannot execute query in readonly mode."
#: Code of a statement that was killed.
CANCELLED = 394


class EngineError(Exception):
    """An exception of the engine, or one in its manner, with its code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, error: Exception) -> EngineError:
        """What chDB raised, as a server would tell it: code and text once, no path of this machine."""
        text = str(error).strip()
        codes = _CODE.findall(text)
        # 1001 is STD_EXCEPTION: an error that the engine gave no code.
        code = int(codes[0]) if codes else 1001
        return cls(_VERSION.sub("", _PATH.sub("", _CODE.sub("", text))), code)

    def text(self, version: str) -> str:
        """The text as the server sends it."""
        return f"Code: {self.code}. DB::Exception: {self} (version {version} (official build))"

    @property
    def status(self) -> int:
        """The HTTP status it is answered with."""
        return _STATUS.get(self.code, 500)


def refused(name: str, code: int, message: str) -> EngineError:
    """An error in the engine's manner, that this server raises in its place."""
    return EngineError(f"{message} ({name})", code)


def by_get(error: EngineError) -> EngineError:
    """The error of a request by GET: a server says there how to write."""
    told = "For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries."
    return EngineError(str(error).replace(NOT_TO_WRITE, f"{NOT_TO_WRITE} {told}", 1), error.code)


class AbortedError(Exception):
    """Ends a response without its end, so that a client sees that it is not whole."""
