"""The few tests that insights rest on. Pure; counts in, probabilities out."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Two-sided 5 %, and a power of 80 %, as normal quantiles.
Z_TWO_SIDED_5, Z_POWER_80 = 1.959964, 0.841621


def upper_tail(z: float) -> float:
    """P(Z >= z) of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def two_proportions(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """One-sided p of the pooled two-proportion z test: is hits/of greater than other_hits/other_of by chance?

    1.0 where one side is empty or both are all or nothing. (Any statistics textbook; valid from some 5 hits expected.)
    """
    if not of or not other_of:
        return 1.0
    pooled = (hits + other_hits) / (of + other_of)
    variance = pooled * (1 - pooled) * (1 / of + 1 / other_of)
    if variance <= 0:
        return 1.0
    return upper_tail((hits / of - other_hits / other_of) / math.sqrt(variance))


def two_rates(events: float, exposure: float, other_events: float, other_exposure: float) -> float:
    """One-sided p that a Poisson rate is greater than another by chance: given the sum, events are binomial.

    The normal form with a half for continuity; 1.0 where there is no exposure or no event.
    """
    total, share = events + other_events, exposure / (exposure + other_exposure) if exposure else 0.0
    if not exposure or not other_exposure or not total:
        return 1.0
    return upper_tail((events - 0.5 - total * share) / math.sqrt(total * share * (1 - share)))


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    z2, share = Z_TWO_SIDED_5**2, hits / of
    centre = share + z2 / (2 * of)
    spread = Z_TWO_SIDED_5 * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, (centre - spread) / (1 + z2 / of)), min(1.0, (centre + spread) / (1 + z2 / of))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q values, in the order given."""
    count, least = len(p_values), 1.0
    q_values = [1.0] * count
    for rank, index in sorted(enumerate(sorted(range(count), key=p_values.__getitem__), start=1), reverse=True):
        least = min(least, p_values[index] * count / rank)
        q_values[index] = least
    return q_values


def views_to_see(share: float, better: float) -> int | None:
    """Views that each of two versions needs so that a fall from ``share`` to ``better`` shows at 5 % in 80 % of tests.

    The usual normal approximation for two proportions; None where there is no difference.
    """
    if share == better:
        return None
    variance = share * (1 - share) + better * (1 - better)
    return math.ceil((Z_TWO_SIDED_5 + Z_POWER_80) ** 2 * variance / (share - better) ** 2)
