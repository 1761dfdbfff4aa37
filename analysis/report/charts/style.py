"""What the charts of an evaluation share: a row a scheme, colours by bits, names, remarks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.evaluation.results import SchemeResult, short_title
from analysis.report.renderers.text import width_of
from analysis.report.theme import BAND, BY_BITS, FLOAT, MARKERS, PLAN, TEXT_SIZE, TITLE_SIZE
from analysis.report.wording import Wording
from vggtkit.core.escaping import plain_for_charts
from vggtkit.quant import FORMATS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_WIDE, _MARKS = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef", "\u3001-\u303f\uff01-\uff65"
_WORD = re.compile(rf"[{_WIDE}][{_MARKS}]*\s*|[^\s{_WIDE}]+[{_MARKS}]*\s*|\s+")
"""A wide letter with the marks after it, or a word with the spaces after it."""


def colour_of(result: SchemeResult) -> str:
    """Of a scheme, by its bits; the plan has its own."""
    if result.key == "plan":
        return PLAN
    known = FORMATS.get(result.key)
    return BY_BITS.get(known.bits, FLOAT) if known else FLOAT


def marker_of(result: SchemeResult, index: int) -> dict[str, object]:
    """How a scheme is marked in a scatter chart; the plan is a star."""
    is_plan = result.key == "plan"
    return {
        "marker": "*" if is_plan else MARKERS[index % len(MARKERS)],
        "markersize": 16 if is_plan else 7,
        "color": colour_of(result),
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
        "zorder": 5 if is_plan else 3,
    }


def title(axes: Axes, text: str) -> None:
    """Above the chart, on the left; no frame at the top and right."""
    axes.set_title(text, fontsize=TITLE_SIZE, fontweight="bold", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def label_below(axes: Axes, text: str, width: int = 58) -> None:
    """The name of the horizontal axis, or a remark, where it covers nothing."""
    axes.set_xlabel(plain_for_charts(folded_text(text, width)), fontsize=TEXT_SIZE)


def folded_text(text: str, width: int) -> str:
    r"""A text in lines of so many columns; of Chinese, which has no spaces, between any two letters.

    >>> folded_text("a bc", 2), folded_text("中文", 2)
    ('a\nbc', '中\n文')
    """
    lines, line, taken = [], "", 0
    for word in _WORD.findall(text):
        long = width_of(word.rstrip())
        if line and taken + long > width:
            lines.append(line.rstrip())
            line, taken = "", 0
        line, taken = line + word, taken + width_of(word)
    return "\n".join([*lines, line.rstrip()])


def name_rows(axes: Axes, results: Sequence[SchemeResult]) -> None:
    """The schemes' names at the left, the first on top, the plan in bold, every other row on a darker ground."""
    axes.set_ylim(max(len(results), 1) - 0.5, -0.5)
    spec = axes.get_subplotspec()
    if spec is None or spec.is_first_col():  # one beside it shares its rows
        axes.set_yticks(range(len(results)), [plain_for_charts(short_title(result)) for result in results])
        for tick, result in zip(axes.get_yticklabels(), results, strict=True):
            tick.set_fontweight("bold" if result.key == "plan" else "normal")
    for row in range(0, len(results), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, zorder=0, linewidth=0)


def not_drawn(missing: Sequence[tuple[SchemeResult, str]], say: Wording) -> str:
    """What a chart leaves out and why, to follow on its axis's name; nothing for nothing."""
    listed = ", ".join(f"{short_title(result)} ({value})" for result, value in missing)
    return say("; not drawn: {names}", names=listed) if listed else ""
