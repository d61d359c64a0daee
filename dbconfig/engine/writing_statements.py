"""Which statements could let a read-only session write: they say READ WRITE, or make that the session's default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

from dbconfig.engine.transaction_statements import HARMLESS
from dbconfig.errors.late_pattern import late_pattern

_FLAGS: Final = re.IGNORECASE | re.DOTALL
_LONGEST: Final = 4096  # characters of a statement that is remembered
_SHORT: Final = 7  # characters of a text that may be a value: 'false'


class Effect(Enum):
    READS = "leaves the session as it is"
    ENDS = "ends the transaction, or brings the refusal of writes back"
    OTHER = "may do anything, as a procedure may"
    OUTSIDE = "may commit and begin anew, where no transaction is open"
    WRITES = "asks for a transaction that writes"


_READS: Final = Effect.READS


def effect(statement: str, system: str) -> Effect:
    """Return what a statement does to the refusal of writes; `system` is a family of databases."""
    # Nearly all of them. A function can change a setting, which PostgreSQL tells with its answer.
    plain = HARMLESS if system == "postgresql" else "SELECT"
    if statement.startswith(plain) and ";" not in statement and "set_config" not in statement:
        return _READS
    return (_remembered if len(statement) < _LONGEST else _examined)(statement, system)


def _examined(statement: str, system: str) -> Effect:
    parts = list(_parts(statement, system))
    if system == "mysql":
        return _on_mysql(parts)
    return Effect.WRITES if _SET_CONFIG.search(statement) else _on_postgresql(parts)


_remembered = lru_cache(maxsize=1024)(_examined)

# PostgreSQL

_ON: Final = r"'?(?:on|true|yes|1)'?"
_VARIABLE: Final = r"\"?(?:default_)?transaction_read_only\"?"
_END: Final = late_pattern(
    r"(?:COMMIT|END|ABORT|ROLLBACK|PREPARE\s+TRANSACTION)\b(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)", _FLAGS
)
_RESTORING: Final = late_pattern(
    r"(?:COMMIT|END|ABORT|ROLLBACK)(?:\s.*)?$|(?:RESET|CLOSE)\s+ALL$|DISCARD\s|SET\s+SESSION\s+AUTHORIZATION\s+DEFAULT$"
    r"|UNLISTEN\s|SELECT pg_advisory_unlock_all\(\)$"
    rf"|SET\s+(?:SESSION\s+|LOCAL\s+)?{_VARIABLE}\s*(?:=|\bTO\b)\s*{_ON}$",
    _FLAGS,
)
_ASKS: Final = late_pattern(
    # An identifier with escapes (U&"…") may be any name.
    r"(?:BEGIN|START|SET)\b.*\bREAD\s+WRITE\b|(?:SET|RESET)\b.*(?:read_only|U&\")",
    _FLAGS,
)
_CALL: Final = late_pattern(r"CALL\b|DO\b.*\b(?:COMMIT|ROLLBACK|CALL)\b", _FLAGS)
_SET_CONFIG: Final = late_pattern(r"\bset_config\s*\(\s*'(?:default_)?transaction_read_only'\s*,\s*(?!'on')", _FLAGS)


def _on_postgresql(parts: list[str]) -> Effect:
    if parts and all(_RESTORING.match(part) for part in parts):
        return Effect.ENDS
    if any(_ASKS.match(part) and not _RESTORING.match(part) for part in parts):
        return Effect.WRITES
    # What comes after the end, in the same text, has no guard before it behind a pooler, nor a look at the state.
    if any(_END.match(part) for part in parts[:-1]):
        return Effect.WRITES
    return Effect.OUTSIDE if any(_CALL.match(part) for part in parts) else Effect.READS


# MySQL and MariaDB

_SYSTEM_VARIABLE: Final = r"(?:(?<![@\w])|(?<=@@)|(?<=\.)|(?<=`))(?:tx|transaction)_read_only\b"
_ASKS_MYSQL: Final = late_pattern(
    rf"\b(?:SET|START)\b.*\bREAD\s+WRITE\b|\bSET\b.*{_SYSTEM_VARIABLE}(?!`?\s*:?=\s*{_ON}\s*(?:,|$))", _FLAGS
)
_READS_MYSQL: Final = late_pattern(
    r"[(\s]*(?:SELECT|SHOW|EXPLAIN|DESC|DESCRIBE|HELP|KILL|SAVEPOINT|RELEASE|VALUES|TABLE|SET\s+NAMES)\b"
    r"|WITH\b(?!.*\b(?:UPDATE|DELETE|INSERT|REPLACE)\b)"
    r"|(?:SET|START)\b.*\bREAD\s+ONLY$",
    _FLAGS,
)
_END_MYSQL: Final = late_pattern(r"(?:COMMIT|ROLLBACK)\b", _FLAGS)


def _on_mysql(parts: list[str]) -> Effect:
    if any(_ASKS_MYSQL.search(part) for part in parts):
        return Effect.WRITES
    if len(parts) == 1 and _END_MYSQL.match(parts[0]):
        return Effect.ENDS
    return Effect.READS if all(_READS_MYSQL.match(part) for part in parts) else Effect.OTHER


# Their words

_QUOTED: Final = {
    "postgresql": r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|(?P<name>\"[^\"]*\")"
    r"|\$(?P<tag>\w*)\$(?P<body>.*?)\$(?P=tag)\$",
    "mysql": r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|(?P<name>`[^`]*`)",
}
_COMMENT: Final = {
    "postgresql": r"|--[^\n]*|(?P<comment>/\*)",
    # What stands in /*! … */ is executed.
    "mysql": r"|#[^\n]*|--(?=\s)[^\n]*|(?P<executed>/\*M?!\d*|\*/)|/\*.*?\*/",
}
_TOKENS: Final = {
    system: late_pattern(quoted + _COMMENT[system] + "|(?P<end>;)", re.DOTALL) for system, quoted in _QUOTED.items()
}
_NESTED: Final = late_pattern(r"/\*|\*/")


def _parts(text: str, system: str) -> Iterator[str]:
    """Yield the statements of a text, without comments and longer texts, but for those of a block of code."""
    found: list[str] = []
    at, tokens = 0, _TOKENS[system]
    while token := tokens.search(text, at):
        found.append(text[at : token.start()])
        at = token.end()
        groups = token.groupdict()
        if groups["end"]:
            yield from _joined(found)
            found = []
        elif groups.get("comment"):
            at = _end_of_comment(text, at)
            found.append(" ")
        elif token[0][0] not in "'\"eE$":
            found.append(groups["name"] or " ")  # MySQL's quotes, a comment
        elif groups["name"] or len(token[0]) <= _SHORT or _is_block(found):
            found.append(groups.get("body") or token[0])
        else:
            found.append("''")
    found.append(text[at:])
    yield from _joined(found)


def _is_block(found: list[str]) -> bool:
    return "".join(found).lstrip()[:2].upper() == "DO"


def _joined(found: list[str]) -> Iterator[str]:
    statement = "".join(found).strip()
    if statement:
        yield statement


def _end_of_comment(text: str, at: int) -> int:
    depth = 1  # PostgreSQL's are nested
    for mark in _NESTED.finditer(text, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(text)
