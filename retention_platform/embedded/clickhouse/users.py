"""Who may ask: the users of the embedded server, and how a request says who it comes from.

Three users, named as the deployed server's: ``default`` may do all, ``api`` and ``bi`` may read, ``bi`` only the
databases given to it. What reading means is enforced in `engine` and `definer`.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from retention_platform.embedded.clickhouse.errors import refused

#: The databases that ``bi`` may read.
BI_DATABASES = ("marts",)


@dataclass(frozen=True)
class User:
    """Somebody who may ask."""

    name: str
    password: str
    may_write: bool = False
    #: The only databases to read; None for all.
    databases: tuple[str, ...] | None = None


#: Who may do all, as this server itself.
ALL_RIGHTS = User("default", "", may_write=True)


def users_of(environment: Mapping[str, str]) -> dict[str, User]:
    """The users by name.

    Without any password all three are open, which is for loopback alone. With one for ``default``, a reader without
    a password of its own does not exist.
    """
    password = environment.get("CLICKHOUSE_PASSWORD", "")
    users = [User("default", password, may_write=True)]
    for name, databases in (("api", None), ("bi", BI_DATABASES)):
        own = environment.get(f"CLICKHOUSE_{name.upper()}_PASSWORD", "")
        if own or not password:
            users.append(User(name, own, databases=databases))
    return {user.name: user for user in users}


def authenticate(users: Mapping[str, User], parameters: Mapping[str, str], headers: Mapping[str, str]) -> User:
    """The user that a request comes from: by headers, URL parameters or basic auth. Raises EngineError 516."""
    name = headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
    password = headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            name, _, password = base64.b64decode(value).decode().partition(":")
    user = users.get(name)
    # Compared also for an unknown user, so that the time taken tells nothing.
    right = hmac.compare_digest(password.encode(), (user.password if user else "").encode())
    if user is None or not right:
        raise refused(
            "AUTHENTICATION_FAILED",
            516,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )
    return user
