"""What a SQL statement does to SQLite's locks, transactions, and switches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

from dbconfig.errors.late_pattern import late_pattern

_GAP: Final = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_WORDS: Final = late_pattern(rf"(?:{_GAP}|;)*([a-z]+)(?:{_GAP}+([a-z_]+))?", _FLAGS)
_WRITES: Final = late_pattern(r"\b(?:INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
_NAME: Final = r"(?:\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]|'(?:[^']|'')*'|[\w$]+)"
_PRAGMA: Final = rf"(?:{_GAP}|;)*PRAGMA{_GAP}*(?:{_NAME}{_GAP}*\.{_GAP}*)?[\"'`\[]?"
_VALUE: Final = rf"[\"'`\]]?{_GAP}*[=(]"
_SWITCHES: Final = ("foreign_keys", "query_only")
_FOREIGN_KEYS: Final = late_pattern(rf"{_PRAGMA}foreign_keys{_VALUE}", _FLAGS)
_QUERY_ONLY: Final = late_pattern(rf"{_PRAGMA}query_only{_VALUE}(?!{_GAP}*['\"]?(?:ON|TRUE|YES|[1-9]\d*)\b)", _FLAGS)
_DROP: Final = late_pattern(
    rf"\bDROP{_GAP}+TABLE{_GAP}+(?:IF{_GAP}+EXISTS{_GAP}+)?({_NAME})(?:{_GAP}*\.{_GAP}*({_NAME}))?", _FLAGS
)


COPY: Final = "_alembic_tmp_"  # the prefix of Alembic's copy of a table
_OF_COPY: Final = late_pattern(rf"(?:{_GAP}|;)*(?:CREATE|ALTER){_GAP}+TABLE{_GAP}+[\"`\[']?{COPY}", _FLAGS)


class Kind(Enum):
    READ = "holds no lock after it has ended"
    WRITE = "takes the write lock"
    DROP = "drops a table"
    COPY = "creates a table that will replace another one"
    REPLACE = "renames it to that table"
    BEGIN = "begins a transaction"
    BEGIN_WRITING = "begins a transaction with the write lock"
    SAVEPOINT = "begins a transaction if none is open"
    END = "ends a transaction, or part of one"
    FOREIGN_KEYS = "turns foreign keys on or off"
    QUERY_ONLY = "lets a read-only connection write"


_BY_WORD: Final = {
    **dict.fromkeys(("SELECT", "VALUES", "EXPLAIN", "PRAGMA", "ATTACH", "DETACH"), Kind.READ),
    **dict.fromkeys(("COMMIT", "END", "ROLLBACK", "RELEASE"), Kind.END),
    "SAVEPOINT": Kind.SAVEPOINT,
    "BEGIN": Kind.BEGIN,
}


def reads_no_table(statement: str) -> bool:
    """Return whether a statement needs no lock, such as the `SELECT 1` of a health check."""
    upper = statement.upper()
    return upper.startswith("SELECT ") and "FROM" not in upper


@lru_cache(maxsize=2048)
def kind_of(statement: str) -> Kind:
    """Return what a statement does, judged by its first words."""
    # Statements that every process sends need no regular expressions, whose compilation slows its startup.
    if statement.startswith("SELECT "):
        return Kind.READ
    if statement.startswith("PRAGMA ") and not any(
        name in statement.lower() for name in ("foreign_keys", "query_only")
    ):
        return Kind.READ
    if statement.startswith("PRAGMA foreign_keys = "):
        return Kind.FOREIGN_KEYS
    if statement in ("BEGIN", "COMMIT", "ROLLBACK"):
        return _BY_WORD[statement]
    match = _WORDS.match(statement)
    first, second = (str(word or "").upper() for word in match.groups()) if match else ("", "")
    if first == "BEGIN" and second in ("IMMEDIATE", "EXCLUSIVE"):
        return Kind.BEGIN_WRITING
    if first == "DROP" and second == "TABLE":
        return Kind.DROP
    if first in ("CREATE", "ALTER") and second == "TABLE" and _OF_COPY.match(statement):
        return Kind.COPY if first == "CREATE" else Kind.REPLACE
    if first == "PRAGMA" and _FOREIGN_KEYS.match(statement):
        return Kind.FOREIGN_KEYS
    if first == "PRAGMA" and _QUERY_ONLY.match(statement):
        return Kind.QUERY_ONLY
    if first == "WITH":
        return Kind.WRITE if _WRITES.search(statement) else Kind.READ
    return _BY_WORD.get(first, Kind.WRITE)


def dropped_tables(script: str) -> Iterator[tuple[str | None, str]]:
    """Yield the schema, if there is one, and the name of each table that a script drops."""
    for first, second in _DROP.findall(script):
        yield (_plain(first), _plain(second)) if second else (None, _plain(first))


def _plain(name: str) -> str:
    mark = name[0]
    if mark == "[":
        return name[1:-1]
    return name[1:-1].replace(mark * 2, mark) if mark in "\"`'" else name
