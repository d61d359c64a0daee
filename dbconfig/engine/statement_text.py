"""Statements in a form that may be shown: with their placeholders, and without literal values."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from dbconfig.engine.statement_parts import parts
from dbconfig.errors.late_pattern import late_pattern
from dbconfig.settings.known_drivers import family

_NUMBER: Final = r"(?<![\w$:@.\"`])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b"
_NAMES: Final = r"(?P<name>\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[A-Za-z_][\w ]*\])"
# In one pass, since a comment may contain a quote, and a string the start of a comment.
_STANDARD: Final = late_pattern(
    r"(?P<comment>/\*.*?\*/|--[^\n]*)|"
    + _NAMES
    + r"|(?P<literal>[Ee]'(?:[^'\\]|''|\\.)*'|(?:[BbXxNn]|U&)?'(?:[^']|'')*'|\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$|"
    + _NUMBER
    + ")",
    re.DOTALL,
)
_MYSQL: Final = late_pattern(
    # Two dashes begin a comment if a space follows: 5--3 is a subtraction.
    r"(?P<comment>/\*.*?\*/|--(?=\s|$)[^\n]*|#[^\n]*)|(?P<name>`(?:[^`]|``)*`)"
    r"|(?P<literal>[BbXxNn]?'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|" + _NUMBER + ")",
    re.DOTALL,
)
_TARGET: Final = late_pattern(
    r"\b(?:FROM|INTO|UPDATE|JOIN|TABLE)\s+(?:ONLY\s+|IF\s+(?:NOT\s+)?EXISTS\s+)?([\w.\"`]+)", re.IGNORECASE
)
_FIRST_WORD: Final = late_pattern(r"[\s(]*([A-Za-z]+)")
_LONGEST_SUMMARY: Final = 255  # characters, as OpenTelemetry has it
LONGEST_TEXT: Final = 4096
_SAME: Final = 2048  # statements whose text is remembered


@lru_cache(maxsize=_SAME)
def shown(statement: str, dialect: str) -> str:
    """Return a statement without comments, and with `?` for each text and number in it.

    Args:
        statement: as passed to the driver.
        dialect: the name of SQLAlchemy's dialect; in MySQL, double quotes delimit a string.
    """
    text = _pattern(dialect).sub(lambda found: {"comment": " ", "name": found[0]}.get(_kind(found), "?"), statement)
    return " ".join(text.split())[:LONGEST_TEXT]


@lru_cache(maxsize=_SAME)
def is_single(statement: str, dialect: str) -> bool:
    """Whether a text is one statement: EXPLAIN applies only to the first of several, and the others are executed."""
    return sum(1 for _ in parts(statement, family(dialect))) < 2


def _pattern(dialect: str) -> re.Pattern[str]:
    return _MYSQL if dialect in ("mysql", "mariadb") else _STANDARD


def _kind(found: re.Match[str]) -> str:
    return "comment" if found["comment"] else "name" if found["name"] else "literal"


@lru_cache(maxsize=_SAME)
def operation(statement: str) -> str:
    """Return the first word of a statement."""
    found = _FIRST_WORD.match(shown(statement, ""))
    return found[1].upper()[:32] if found else "UNKNOWN"


@lru_cache(maxsize=_SAME)
def summary(statement: str, dialect: str) -> str:
    """Return what a statement does to which tables: ``SELECT hero team``; few different ones for many statements."""
    tables = dict.fromkeys(each.strip('"`') for each in _TARGET.findall(shown(statement, dialect)))
    return " ".join([operation(statement), *tables])[:_LONGEST_SUMMARY]
