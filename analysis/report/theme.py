"""One theme for all charts: colours that are told apart with any colour vision, on light and on dark.

Source: Okabe and Ito, "Color Universal Design", 2008. Fields of numbers have colours whose lightness rises evenly, so
that they are read in grey too.
"""

from __future__ import annotations

from dataclasses import dataclass

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
PLAN, UNIFORM, BASELINE = "#D55E00", "#0072B2", "#8C8C8C"
FLOAT, REFERENCE, WARNING = "#7F7F7F", "#333333", "#B00000"
BY_BITS = {8: "#0072B2", 4: "#009E73", 3: "#CC79A7", 2: "#E69F00"}
MARKERS = "osD^vp>hX<Pd"
BITS_SCALE = {
    2: "#7F2704", 3: "#D95F0E", 4: "#FDBE6F", 5: "#C7E9B4", 6: "#41B6C4", 8: "#225EA8", 16: "#2B2D42", 32: "#000000",
}  # fmt: skip
"""Where every number of bits stands beside every other: from brown, few, to blue, many."""
GRID, GREY, QUIET, EDGE = "#E6E6E6", "#999999", "#666666", "#555555"
BAND, EMPTY = "#F3F3F3", "#DDDDDD"
"""Every second row; a field without a number."""
DEPTH_COLOURS, ERROR_COLOURS, FIELD_COLOURS = "cividis", "inferno", "cividis"
TITLE_SIZE, TEXT_SIZE = 12, 9
DPI = 110


@dataclass(frozen=True)
class Palette:
    """Colours of a page, by what they are for; each pair of text and ground has a contrast of at least 4.5."""

    ground: str
    surface: str
    text: str
    quiet: str
    line: str
    accent: str
    plan: str
    uniform: str
    baseline: str
    good: str
    warning: str
    violet: str
    mark: str = "#FF3B30"


LIGHT = Palette(
    ground="#FFFFFF", surface="#F5F6F8", text="#1B1F24", quiet="#57606A", line="#D0D7DE", accent="#0059B3",
    plan="#B84A00", uniform="#0072B2", baseline="#6E7781", good="#007A55", warning="#B00000",
    violet="#8E3A80",
)  # fmt: skip
DARK = Palette(
    ground="#12161C", surface="#1C222B", text="#E6EAF0", quiet="#9DA7B3", line="#3A434F", accent="#79B8FF",
    plan="#FF9A57", uniform="#56B4E9", baseline="#9DA7B3", good="#3DD6A3", warning="#FF8A8A",
    violet="#E39AD0",
)  # fmt: skip


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21.

    Source: W3C, "Web Content Accessibility Guidelines 2.2", 2023, relative luminance and contrast ratio.

    >>> contrast("#000000", "#FFFFFF")
    21.0
    """
    lights = sorted((_luminance(one), _luminance(other)))
    return round((lights[1] + 0.05) / (lights[0] + 0.05), 6)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
