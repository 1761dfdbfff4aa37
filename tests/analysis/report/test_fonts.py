"""Charts have the letters of the reader's language, or say that they stay in English."""

import warnings
from pathlib import Path

import pytest

from analysis.report.charts import fonts
from analysis.report.charts.comprehensive import draw
from analysis.report.charts.fonts import chinese_family, wording_of_charts
from analysis.report.wording import Wording
from tests.analysis.example import example_evaluation


def test_a_system_without_chinese_letters_keeps_english_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ["/nowhere/NotoSansCJK-Regular.ttc", "/a.ttf"]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: paths)
    assert chinese_family.__wrapped__() is None
    monkeypatch.setattr(fonts, "chinese_family", lambda: None)
    say, note = wording_of_charts(Wording("zh"))
    assert say.language == "en"
    assert "Noto Sans CJK" in note
    assert note.startswith("\u56fe")
    assert wording_of_charts(Wording("en"))[1] == ""


@pytest.mark.slow
@pytest.mark.skipif(chinese_family() is None, reason="no font of this system has Chinese letters")
def test_chinese_charts_lack_no_letter_and_differ_from_english_ones(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of every letter that it has not
        warnings.simplefilter("ignore", DeprecationWarning)  # an older one of what it is built on
        for language in ("en", "zh"):
            draw(example_evaluation(), tmp_path / f"{language}.png", None, Wording(language))
    assert (tmp_path / "zh.png").read_bytes() != (tmp_path / "en.png").read_bytes()
