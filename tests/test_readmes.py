"""The README in two languages: the same commands, figures, links and names, section by section."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
FIGURE = r"(?<![A-Za-z0-9_.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![A-Za-z0-9_])"
ONE_ANOTHER = re.compile(r"\(README(\.zh)?\.md\)")


def sections(text: str) -> list[str]:
    return re.split(r"^## .*$", text, flags=re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Code without its comments, which are translated."""
    return [[line.partition("  #")[0].strip() for line in code.splitlines()] for _, code in FENCE.findall(text)]


def prose(section: str) -> str:
    return ONE_ANOTHER.sub("", FENCE.sub("", section))


PAIRS = list(zip(*map(sections, TEXTS), strict=True))


def test_the_commands_are_the_same() -> None:
    ours, theirs = map(commands, TEXTS)
    assert len(ours) > 5
    assert ours == theirs


@pytest.mark.parametrize("number", range(len(PAIRS)))
@pytest.mark.parametrize(
    "pattern",
    [FIGURE, r"\]\([^)]*\)", r"`[^`]+`"],
    ids=["figures", "links", "names"],
)
def test_a_section_has_the_same(number: int, pattern: str) -> None:
    counts = [Counter(re.findall(pattern, prose(section))) for section in PAIRS[number]]
    assert counts[0] - counts[1] == counts[1] - counts[0] == Counter()


def test_pictures_and_links_are_there() -> None:
    for text in TEXTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), target
