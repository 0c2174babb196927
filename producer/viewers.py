"""Who watches: invented viewers, each always the same for a seed and a number. Pure; how they behave is elsewhere."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass

from producer.behaviours import BEHAVIOURS, Behaviour

_DEVICES = (
    (0.46, "mobile", (("iOS", ("Safari", "Chrome")), ("Android", ("Chrome", "Firefox", "Samsung Internet")))),
    (
        0.40,
        "desktop",
        (("Windows", ("Chrome", "Edge", "Firefox")), ("macOS", ("Safari", "Chrome")), ("Linux", ("Firefox",))),
    ),
    (0.08, "tablet", (("iPadOS", ("Safari",)), ("Android", ("Chrome",)))),
    (0.06, "tv", (("Tizen", ("App",)), ("webOS", ("App",)))),
)
_COUNTRIES = ("DE", "US", "FR", "GB", "IN", "BR", "ES", "PL", "JP", "NG")
_COUNTRY_WEIGHTS = (24, 20, 12, 10, 9, 7, 6, 5, 4, 3)
_SOURCES = ("search", "newsletter", "social", "embedded", "direct", "course")
_SOURCE_WEIGHTS = (26, 14, 24, 12, 14, 10)


@dataclass(frozen=True)
class Viewer:
    """Somebody who watches, always on the same device."""

    viewer_id: str
    behaviour: Behaviour
    device: str
    #: JSON members of every event of this viewer.
    attributes: str


@functools.lru_cache(maxsize=100_000)
def viewer_of(seed: int, number: int) -> Viewer:
    """The viewer of that number."""
    chance = random.Random(f"{seed}/viewer/{number}")
    behaviour = chance.choices(BEHAVIOURS, [kind.share for kind in BEHAVIOURS])[0]
    _, device, systems = chance.choices(_DEVICES, [share for share, _, _ in _DEVICES])[0]
    system, browsers = chance.choice(systems)
    values = {
        "device_type": device,
        "os": system,
        "browser": chance.choice(browsers),
        "country": chance.choices(_COUNTRIES, _COUNTRY_WEIGHTS)[0],
        "traffic_source": chance.choices(_SOURCES, _SOURCE_WEIGHTS)[0],
        "player": "demo-player/2",
    }
    attributes = "".join(f',"{name}":{json.dumps(value)}' for name, value in values.items())
    return Viewer(f"viewer-{number:06d}", behaviour, device, attributes)


def pick_viewer(chance: random.Random, seed: int, viewers: int) -> Viewer:
    """One of so many viewers, some of whom come much more often than others."""
    return viewer_of(seed, int(chance.random() ** 1.5 * viewers))
