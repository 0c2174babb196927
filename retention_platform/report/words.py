"""How figures are put, in one place, so that a figure looks the same wherever it stands."""

from __future__ import annotations

from datetime import datetime, timezone

#: Where there is nothing to say; never 0, which is a measured zero.
NOTHING = "–"


def count(value: float) -> str:
    """A whole number with thousands separated: 1,820."""
    return f"{value:,.0f}"


def decimal(value: float) -> str:
    """One decimal, thousands separated: 11.9."""
    return f"{value:,.1f}"


def typical_count(value: float) -> str:
    """A median of whole numbers, which may lie between two: 1,820 or 1,820.5."""
    return f"{value:,.1f}".removesuffix(".0")


def share(value: float) -> str:
    """A share of 0 to 1 as a percentage: 71.5 %."""
    return f"{100 * value:.1f} %"


def percentage(value: float) -> str:
    """A percentage: 46.1 %."""
    return f"{value:.1f} %"


def ratio(value: float) -> str:
    """Two decimals: 1.38."""
    return f"{value:.2f}"


def probability(value: float) -> str:
    """A p or q value: two significant digits, 1.1e-10."""
    return f"{value:.2g}"


def position(second: float) -> str:
    """A place in the video: 7:12, or 1:02:03 from an hour on."""
    minutes, seconds = divmod(int(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def length(seconds: float) -> str:
    """How long something lasted: 41.2 s, 4 min 41 s, 142 h 19 min."""
    if seconds < 60 and round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def utc(moment: datetime) -> datetime:
    """The driver gives UTC without saying so."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def when(moment: datetime) -> str:
    """An instant to the second, UTC: 2026-03-15 00:10:07 UTC."""
    return f"{utc(moment):%Y-%m-%d %H:%M:%S} UTC"


def plural(number: int, one: str, many: str = "") -> str:
    """``1 view``, ``2 views``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
