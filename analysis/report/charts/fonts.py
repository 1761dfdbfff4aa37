"""Letters of the reader's language in charts: matplotlib brings none of Chinese, so a font of the system has to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from analysis.report.wording import Wording

KNOWN = (
    "notosanscjk", "notosanssc", "sourcehansans", "wqyzenhei", "wqymicrohei", "msyh", "simhei", "pingfang",
    "hiraginosansgb", "stheiti", "droidsansfallback", "arialunicode",
)  # fmt: skip
"""How files of fonts with Chinese letters begin, without hyphens and in small letters; those that look best first."""
SAMPLE = "中文损伤"
"""Letters that such a font has to have."""
LATIN = "DejaVu Sans"


@cache
def chinese_family() -> str | None:
    """The family of a font of this system that has the letters of Chinese; None where there is none."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    fonts: list[tuple[int, str]] = []
    for path in font_manager.findSystemFonts():
        name = Path(path).stem.lower().replace("-", "").replace("_", "").replace(" ", "")
        fonts += [(rank, path) for rank, known in enumerate(KNOWN) if name.startswith(known)]
    for _, path in sorted(fonts):
        try:
            font = FT2Font(path)
            if set(map(ord, SAMPLE)) <= font.get_charmap().keys():
                font_manager.fontManager.addfont(path)
                return str(font.family_name)
        except (OSError, RuntimeError):  # one that cannot be read is no help
            continue
    return None


def wording_of_charts(say: Wording) -> tuple[Wording, str]:
    """The words that charts can be drawn with, and what to tell the reader where these are English."""
    if say.language == "en" or chinese_family() is not None:
        return say, ""
    sentence = "The charts are in English: no font of this system has Chinese letters (Noto Sans CJK has, for one)."
    return Wording("en"), say(sentence)


@contextmanager
def letters_of(say: Wording) -> Iterator[None]:
    """Figures that are made and saved inside have the letters of a language that `wording_of_charts` gave."""
    from matplotlib import rc_context

    families = [LATIN] if say.language == "en" else [LATIN, chinese_family() or LATIN]
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of weights that a font does not have
    try:
        with rc_context({"font.family": families}):
            yield
    finally:
        log.setLevel(level)
