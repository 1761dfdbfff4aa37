"""What is promised names the tests that show it, and these are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAME = re.compile(r"`((?:tests|benchmarks|\.ci)/[^`:\s*]+|)(?:::(\w+))?`")
PROMISE = re.compile(r"^- \*\*(.+?)\*\*.*?(?=^- |^#|\Z|^$)", re.DOTALL | re.MULTILINE)


def named(text: str) -> list[tuple[str, str]]:
    """Files and, behind a double colon, tests; a test without a file is of the file before."""
    found, file = [], ""
    for path, test in NAME.findall(text):
        file = path or file
        found.append((file, test))
    return [(file, test) for file, test in found if file or test]


@pytest.mark.parametrize(("file", "test"), sorted(set(named(TEXT))))
def test_every_file_and_test_is_there(file: str, test: str) -> None:
    assert (ROOT / file).exists(), file
    if test:
        assert re.search(rf"^ *def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (file, test)


def test_every_promise_names_a_test_that_is_there() -> None:
    promises = {match[1]: match[0] for match in PROMISE.finditer(TEXT)}
    assert len(promises) > 20
    assert [title for title, text in promises.items() if not any(test for _, test in named(text))] == []


def test_a_promise_without_a_test_is_seen() -> None:
    text = "- **One.** So (`tests/a.py::test_b`,\n  `::test_c`).\n- **Two.** Not so (`tests/a.py`).\n"
    promises = [match[0] for match in PROMISE.finditer(text)]
    assert [[test for _, test in named(promise)] for promise in promises] == [["test_b", "test_c"], [""]]
    assert named(promises[0])[1] == ("tests/a.py", "test_c")
