"""The words of a report in the reader's language: English sentences, and a catalogue of what they are in others.

A sentence is its own key, with the values that it is about in braces. What is built elsewhere, a table's title say,
is translated as well where it fits a key of the catalogue.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from importlib.resources import files

from analysis.report.document import Cell, Row, Table, as_cell
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

LANGUAGES = ("en", "zh")
LONGEST = 1000
"""Characters of a text that is still looked for among the sentences with values."""
_FIELD = re.compile(r"\{(\w+)\}")


class Wording:
    """Says things in a language.

    Args:
        language: one of `LANGUAGES`.

    Raises:
        InputError: another.

    >>> Wording("en")("{count} layers", count=3), Wording("zh")("{count} layers", count=3)
    ('3 layers', '3 层')
    """

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise InputError(f"{setting('lang', language)}: reports are written in {' or '.join(LANGUAGES)}")
        self.language = language
        self._catalogue = catalogue(language)

    def __call__(self, sentence: str, **values: object) -> str:
        """A sentence with its values."""
        return self._catalogue.get(sentence, sentence).format(**values)

    def translated(self, text: str) -> str:
        """A text that was made elsewhere, and the values in it; as it is where the catalogue does not know it.

        >>> Wording("zh").translated("3 layers"), Wording("zh").translated("unheard of")
        ('3 层', 'unheard of')
        """
        if text in self._catalogue or len(text) > LONGEST:
            return self._catalogue.get(text, text)
        for pattern, sentence in _patterns(self.language):
            if match := pattern.fullmatch(text):
                values = {name: self.translated(value) for name, value in match.groupdict().items()}
                return self._catalogue[sentence].format(**values)
        return text

    def table(self, table: Table) -> Table:
        """A table that was made elsewhere: its title, columns, caption, and the words in its cells."""
        if self.language == "en":
            return table
        say = self.translated

        def cell(one: str | Cell) -> Cell:
            return as_cell(one)._replace(text=say(as_cell(one).text))

        rows: list[Row] = [tuple(map(cell, row)) for row in table.rows]
        return replace(
            table,
            title=say(table.title),
            columns=tuple(map(say, table.columns)),
            rows=rows,
            caption=say(table.caption),
            wraps=say(table.wraps),
            words=tuple(map(say, table.words)),
        )


@cache
def catalogue(language: str) -> dict[str, str]:
    """Sentences of a language by the English ones; none for English."""
    if language == "en":
        return {}
    text = (files("analysis.report") / f"{language}.json").read_text(encoding="utf-8")
    read: dict[str, str] = json.loads(text)
    return read


def fields_of(sentence: str) -> set[str]:
    """Names of the values in a sentence.

    >>> sorted(fields_of("{scheme} has {damage}"))
    ['damage', 'scheme']
    """
    return set(_FIELD.findall(sentence))


@cache
def _patterns(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Sentences with values as regular expressions; those with the most words first."""
    with_values = sorted((key for key in catalogue(language) if _FIELD.search(key)), key=len, reverse=True)
    return tuple((_pattern(key), key) for key in with_values)


def _pattern(sentence: str) -> re.Pattern[str]:
    seen: set[str] = set()
    parts = []
    for number, part in enumerate(_FIELD.split(sentence)):
        if number % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>.+?)")
            seen.add(part)
    return re.compile("".join(parts), re.DOTALL)


ENGLISH = Wording("en")
"""Sentences as they are."""
