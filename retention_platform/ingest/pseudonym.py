"""Viewer ids as pseudonyms: HMAC-SHA256 under a key that ClickHouse never sees, put into messages before they are sent.

A message that says who watched is changed in that one place and keeps its meaning: what is the contract stays it, and
what is not is refused for the same reason. Where it cannot be told which bytes name a viewer (no JSON, no object, an
id of the wrong type, fields that the contract does not know), nothing that may name one is passed on.

One id gives one pseudonym for ever, so a replay gives identical rows. Nothing here is done while no key is set.
"""

from __future__ import annotations

import functools
import hmac
import re
from collections.abc import Callable
from typing import Any

import orjson

from retention_platform.contract import EVENTS_TOPIC, MAX_ID_LENGTH, MAX_MESSAGE_BYTES, PlaybackEvent

#: What every pseudonym begins with; 64 hexadecimal digits follow. An id of this form is one already: mended rejects
#: come through the topic again.
PREFIX = "hmac:"
_IS_ONE = re.compile(r"hmac:[0-9a-f]{64}")

_FIELDS = frozenset(PlaybackEvent.model_fields)
#: Fields in which a player may put whatever it likes.
_FREE_TEXT = frozenset({"session_id", "device_type", "os", "browser", "country", "traffic_source", "player"})

#: Ids whose pseudonyms are remembered: viewers come again with every heartbeat.
_REMEMBERED = 100_000


class Pseudonyms:
    """The pseudonyms that one key gives."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.of: Callable[[str], str] = functools.lru_cache(_REMEMBERED)(self._of)

    def _of(self, viewer_id: str) -> str:
        """The pseudonym of an id; of a pseudonym itself."""
        if _IS_ONE.fullmatch(viewer_id):
            return viewer_id
        return PREFIX + hmac.digest(self._key, viewer_id.encode(), "sha256").hex()

    def message(self, topic: str, payload: bytes) -> bytes:
        """The message as it may be stored; of another topic than that of events as it is."""
        if topic != EVENTS_TOPIC or not payload:
            return payload
        if len(payload) > MAX_MESSAGE_BYTES:
            # Padded, so that it is refused for what it is; its bytes are not looked into.
            return self._withheld(payload).ljust(MAX_MESSAGE_BYTES + 1)
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return self._withheld(payload)
        if not isinstance(value, dict):
            return orjson.dumps([self._withheld(payload).decode()])
        viewer = value.get("viewer_id")
        if isinstance(viewer, str) and viewer and len(viewer) <= MAX_ID_LENGTH and value.keys() <= _FIELDS:
            # Nearly always: written once and plainly, it is exchanged in place.
            written = b'"' + viewer.encode() + b'"'
            if payload.count(written) == 1 and payload.count(b'"viewer_id"') == 1:
                return payload.replace(written, b'"' + self.of(viewer).encode() + b'"')
        return self._rewritten(value)

    def _rewritten(self, value: dict[str, Any]) -> bytes:
        """An object with known fields only and its viewer made a pseudonym that is as wrong as the id was."""
        kept = {name: content for name, content in value.items() if name in _FIELDS}
        viewer = kept.get("viewer_id")
        if isinstance(viewer, str):
            # Over the limit before, over it now.
            kept["viewer_id"] = self.of(viewer) * (4 if len(viewer) > MAX_ID_LENGTH else 1) if viewer else ""
        elif viewer is not None:
            kept["viewer_id"] = [self.of(orjson.dumps(viewer, option=orjson.OPT_SORT_KEYS).decode())]
        # The same text in another field would tell whose the pseudonym is.
        if isinstance(viewer, str) and viewer:
            for name in _FREE_TEXT & kept.keys():
                if kept[name] == viewer:
                    kept[name] = self.of(viewer)
        return orjson.dumps(kept)

    def _withheld(self, payload: bytes) -> bytes:
        """In place of bytes that may name anybody; no JSON, as they were none."""
        name = hmac.digest(self._key, payload, "sha256").hex()
        return f"withheld since VIEWER_ID_HMAC_KEY is set: {len(payload)} bytes, {name}".encode()
