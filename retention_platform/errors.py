"""Errors that people can cause, each told in one line: what is wrong, where, and what to do.

RetentionError
├── ContractError        a message that is not the event contract
├── SettingsError        an environment variable that makes no sense
└── ServiceError         a broker or database that is away, refuses us, or answers nonsense
"""

from __future__ import annotations


class RetentionError(Exception):
    """An error for the user's eyes: its text is one line and says what to do."""


class SettingsError(RetentionError):
    """A setting that cannot be used."""


class ServiceError(RetentionError):
    """A service this part needs is away or refuses it."""


class ContractError(RetentionError):
    """A message that breaks the contract; ``field`` names where (``message`` when it is no object at all)."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
