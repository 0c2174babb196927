"""Colours of pages and figures, light and dark: those of Okabe and Ito, which the colour-blind tell apart.

Where one of them has too little contrast with its background, the same hue is taken lighter or darker.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """Colours as hexadecimal RGB."""

    text: str
    quiet: str
    grid: str
    background: str
    retention: str
    watch_ratio: str
    reach: str
    dropoff: str
    spike: str
    dip: str
    top_moment: str
    #: For lines beside each other, told apart by their dashes as well.
    series: tuple[str, ...]
    #: From nothing to much, for the strip of rewatches.
    heat: tuple[str, str]


LIGHT = Palette(
    text="#1b2430",
    quiet="#5b6675",
    grid="#e4e8ee",
    background="#ffffff",
    retention="#0072b2",
    watch_ratio="#a85f00",
    reach="#00785a",
    dropoff="#c44900",
    spike="#a85f00",
    dip="#a8487f",
    top_moment="#00785a",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a7400"),
    heat=("#f3f5f8", "#d55e00"),
)
DARK = Palette(
    text="#e8ecf2",
    quiet="#9aa6b5",
    grid="#2c3542",
    background="#10151c",
    retention="#56b4e9",
    watch_ratio="#e69f00",
    reach="#2fc79a",
    dropoff="#ff7d33",
    spike="#e69f00",
    dip="#e39cc4",
    top_moment="#2fc79a",
    series=("#56b4e9", "#e69f00", "#2fc79a", "#e39cc4", "#f0e442", "#b9c3d0"),
    heat=("#1b222c", "#e69f00"),
)
#: How the lines of `Palette.series` are drawn.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def palette(*, dark: bool) -> Palette:
    """The colours of the theme that is shown."""
    return DARK if dark else LIGHT


def streamlit_options() -> dict[str, object]:
    """Streamlit's options for both themes; the viewer's system decides which is shown."""
    options: dict[str, object] = {
        "theme.baseRadius": "0.5rem",
        "theme.baseFontSize": 15,
        "theme.headingFontSizes": ["1.9rem", "1.4rem", "1.15rem"],
        "theme.metricValueFontSize": "1.6rem",
        "theme.paddingTop": "2.5rem",
    }
    for name, colours, raised in (("light", LIGHT, "#f5f7fa"), ("dark", DARK, "#18202a")):
        options |= {
            f"theme.{name}.primaryColor": colours.retention,
            f"theme.{name}.backgroundColor": colours.background,
            f"theme.{name}.secondaryBackgroundColor": raised,
            f"theme.{name}.textColor": colours.text,
            f"theme.{name}.borderColor": colours.grid,
            f"theme.{name}.linkColor": colours.retention,
            f"theme.{name}.greenColor": colours.top_moment,
            f"theme.{name}.redColor": colours.dropoff,
        }
    return options
