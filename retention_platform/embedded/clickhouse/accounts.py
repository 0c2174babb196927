"""Users made by SQL: ``CREATE USER`` and ``DROP USER``, as far as they are names with passwords.

The engine has no storage for users, so this server keeps them in a file beside the data. They may log in and have what
a user has before the first GRANT: no rights. GRANT itself, roles, policies and quotas are the engine's to refuse, and
so are these two statements with more in them than is understood here.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from retention_platform.embedded.clickhouse.errors import refused
from retention_platform.embedded.clickhouse.sql import Token, tokens, unquote
from retention_platform.embedded.clickhouse.users import User, digest_of


class Accounts:
    """The users made by SQL, among ``users``, those of the configuration. Methods may be called from any thread."""

    def __init__(self, users: dict[str, User], file: Path) -> None:
        """Add those of the file, if there is one, to ``users``, which is kept and changed."""
        self._users = users
        self._file = file
        self._guard = threading.Lock()
        made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        # Who is in the configuration is what the configuration says.
        self._made = {name: kept for name, kept in made.items() if name not in users}
        users.update({name: _user(name, *kept) for name, kept in self._made.items()})

    def execute(self, statement: bytes) -> bool:
        """Execute the statement if it is one of those understood here. Raises EngineError as the server does."""
        words = _Words(statement)
        if words.take("create", "user"):
            may_exist, replaces = words.take("if", "not", "exists"), words.take("or", "replace")
            names, secret = words.names(), words.secret()
            if not names or secret is None or words.left:
                return False
            with self._guard:
                self._create(names, secret, may_exist=may_exist, replaces=replaces)
            return True
        if words.take("drop", "user"):
            may_lack, names = words.take("if", "exists"), words.names()
            if not names or words.left:
                return False
            with self._guard:
                self._drop(names, may_lack=may_lack)
            return True
        return False

    def _create(self, names: list[str], secret: tuple[str, str], *, may_exist: bool, replaces: bool) -> None:
        for name in names:
            # Those of the configuration nobody replaces by SQL.
            if name in self._users and not may_exist and not (replaces and name in self._made):
                raise refused("ACCESS_ENTITY_ALREADY_EXISTS", 493, f"user `{name}`: cannot insert because it exists.")
        for name in names:
            if name not in self._users or replaces:
                self._made[name] = secret
                self._users[name] = _user(name, *secret)
        self._keep()

    def _drop(self, names: list[str], *, may_lack: bool) -> None:
        for name in names:
            if name in self._users and name not in self._made:
                raise refused("ACCESS_STORAGE_READONLY", 495, f"Cannot remove user `{name}`: it is configured.")
            if name not in self._users and not may_lack:
                raise refused("UNKNOWN_USER", 192, f"There is no user `{name}` in user directories.")
        for name in names:
            self._made.pop(name, None)
            self._users.pop(name, None)
        self._keep()

    def _keep(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(self._made), encoding="utf-8")
        partial.replace(self._file)


def _user(name: str, salt: str, digest: str) -> User:
    return User(name, "", databases=(), salt=salt, digest=digest)


class _Words:
    """A statement's tokens, taken one after the other."""

    def __init__(self, statement: bytes) -> None:
        self._rest: Iterator[Token] = tokens(statement)
        self._next: Token | None = next(self._rest, None)

    @property
    def left(self) -> bool:
        """Whether anything is left but what ends a statement."""
        return self._next is not None and self._next.text != b";"

    def take(self, *words: str) -> bool:
        """Take the words if the first of them comes next; the others must follow, or nothing is understood any more."""
        if self._next is None or not self._next.is_word(words[0].encode()):
            return False
        for word in words:
            if self._next is None or not self._next.is_word(word.encode()):
                self._next = Token("symbol", b"?", 0, 0, 0)
                return False
            self._advance()
        return True

    def names(self) -> list[str]:
        """Take names between commas."""
        names = []
        while self._next is not None and self._next.kind in ("word", "name", "string"):
            names.append(unquote(self._advance()))
            if self._next is None or self._next.text != b",":
                break
            self._advance()
        return names

    def secret(self) -> tuple[str, str] | None:
        """Take how a user identifies itself: salt and digest; None for what is not understood."""
        if not self.left or self.take("not", "identified"):
            return _salted("")
        if not self.take("identified"):
            return None
        method = "sha256_password"
        if self.take("with"):
            method = unquote(self._advance()) if self._next is not None and self._next.kind == "word" else ""
        if method == "no_password":
            return _salted("")
        if not self.take("by") or self._next is None or self._next.kind != "string":
            return None
        value = unquote(self._advance())
        if method in ("sha256_password", "plaintext_password"):
            return _salted(value)
        salt = ""
        if self.take("salt"):
            if self._next is None or self._next.kind != "string":
                return None
            salt = unquote(self._advance())
        return (salt, value.lower()) if method == "sha256_hash" else None

    def _advance(self) -> Token:
        token, self._next = self._next, next(self._rest, None)
        assert token is not None
        return token


def _salted(password: str) -> tuple[str, str]:
    salt = secrets.token_hex(16)
    return salt, digest_of(password, salt)
