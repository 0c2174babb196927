"""Who may ask: the users of the embedded server, and how a request says who it comes from.

Three users, named as the deployed server's: ``default`` may do all, ``api`` and ``bi`` may read, ``bi`` only the
databases given to it, and no query of its may take more than so much time and memory. What reading means is enforced in
`engine` and `definer`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from retention_platform.embedded.clickhouse.errors import refused

#: The databases that ``bi`` may read.
BI_DATABASES = ("marts",)
#: What one query of ``bi`` may take: seconds and bytes. As in deploy/clickhouse/users.d/retention.xml.
BI_LIMITS = {"max_execution_time": 60, "max_memory_usage": 2 * 1024**3}


@dataclass(frozen=True)
class User:
    """Somebody who may ask."""

    name: str
    password: str
    may_write: bool = False
    #: The only databases to read; None for all.
    databases: tuple[str, ...] | None = None
    #: The most that a request may set these settings to, and what they are when it does not.
    limits: Mapping[str, int] = field(default_factory=dict)
    #: Of who was made by SQL: `digest_of` the password, in place of it.
    digest: str = ""
    salt: str = ""

    @property
    def engine_name(self) -> str:
        """The engine's user with the same rights."""
        return self.name if self.databases else NOBODY

    def within_limits(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings with those that are limited held to it. 0 means no limit to the engine, so here the limit."""
        return {**settings, **{name: _at_most(limit, settings.get(name, "0")) for name, limit in self.limits.items()}}

    def accepts(self, password: str) -> bool:
        """Whether that is the password; compared so that the time taken tells nothing."""
        expected, given = (self.digest, digest_of(password, self.salt)) if self.digest else (self.password, password)
        return hmac.compare_digest(_bytes(given), _bytes(expected))


def _at_most(limit: int, wanted: str) -> str:
    try:
        return wanted if 0 < float(wanted) <= limit else str(limit)
    except ValueError:
        # Not a number: the engine says so.
        return wanted


#: The engine's user without any rights.
NOBODY = "nobody"
#: Who may do all, as this server itself.
ALL_RIGHTS = User("default", "", may_write=True)


def users_of(environment: Mapping[str, str]) -> dict[str, User]:
    """The users by name.

    Without any password all three are open, which is for loopback alone. With one for ``default``, a reader without
    a password of its own does not exist.
    """
    password = environment.get("CLICKHOUSE_PASSWORD", "")
    users = [User("default", password, may_write=True)]
    for reader in (User("api", ""), User("bi", "", databases=BI_DATABASES, limits=BI_LIMITS)):
        own = environment.get(f"CLICKHOUSE_{reader.name.upper()}_PASSWORD", "")
        if own or not password:
            users.append(replace(reader, password=own))
    return {user.name: user for user in users}


def authenticate(users: Mapping[str, User], parameters: Mapping[str, str], headers: Mapping[str, str]) -> User:
    """The user that a request comes from: by headers, URL parameters or basic auth. Raises EngineError 516."""
    name = headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
    password = headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme:
        name, password = _basic(scheme, value)
    user = users.get(name)
    # Compared also for an unknown user, whom the time taken shall not tell from others.
    right = (user or ALL_RIGHTS).accepts(password)
    if user is None or not right:
        raise refused(
            "AUTHENTICATION_FAILED",
            516,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )
    return user


def digest_of(password: str, salt: str) -> str:
    """What is kept of a password: SHA-256 of it and a salt, as the engine's ``sha256_hash`` has it."""
    return hashlib.sha256(_bytes(password + salt)).hexdigest()


def _bytes(text: str) -> bytes:
    # A URL may hold bytes that are no text; they come as surrogates.
    return text.encode("utf-8", "surrogateescape")


def _basic(scheme: str, value: str) -> tuple[str, str]:
    """Name and password of an Authorization header. Raises EngineError 516 for another scheme than basic."""
    try:
        if scheme.lower() == "basic":
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            return name, password
    except ValueError:
        # Neither base64 nor text: refused without a word about what it holds.
        scheme = "Basic, unreadable,"
    raise refused(
        "AUTHENTICATION_FAILED", 516, f"Invalid authentication: '{scheme}' HTTP Authorization scheme is not supported."
    )
