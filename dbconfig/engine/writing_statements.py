"""Which statements could let a read-only session write: those with READ WRITE, or that change the default."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final

from dbconfig.engine.statement_parts import parts
from dbconfig.engine.transaction_statements import HARMLESS
from dbconfig.errors.late_pattern import late_pattern

_FLAGS: Final = re.IGNORECASE | re.DOTALL
_LONGEST: Final = 4096  # maximum characters of a cached statement


class Effect(Enum):
    READS = "leaves the session as it is"
    ENDS = "ends the transaction, or restores the read-only mode"
    OTHER = "may do anything, such as a procedure"
    OUTSIDE = "may commit and begin again, if no transaction is open"
    WRITES = "requests a writable transaction"


_READS: Final = Effect.READS


def effect(statement: str, system: str) -> Effect:
    """Return how a statement affects the read-only mode; `system` is a family of databases."""
    # Nearly all of them. A function can change a setting, which PostgreSQL reports in its answer.
    plain = HARMLESS if system == "postgresql" else "SELECT"
    if statement.startswith(plain) and ";" not in statement and "set_config" not in statement.lower():
        return _READS
    # MySQL's drivers insert the values into the statement, so each one differs, and may contain a secret.
    return (_remembered if system != "mysql" and len(statement) < _LONGEST else _examined)(statement, system)


def _examined(statement: str, system: str) -> Effect:
    found = list(parts(statement, system))
    if system == "mysql":
        return _on_mysql(found)
    return Effect.WRITES if _SET_CONFIG.search(statement) else _on_postgresql(found)


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


def _on_postgresql(statements: list[str]) -> Effect:
    if statements and all(_RESTORING.match(each) for each in statements):
        return Effect.ENDS
    if any(_ASKS.match(each) and not _RESTORING.match(each) for each in statements):
        return Effect.WRITES
    # A statement after the end, in the same text, has no guard before it behind a pooler, and its state is not checked.
    if any(_END.match(each) for each in statements[:-1]):
        return Effect.WRITES
    return Effect.OUTSIDE if any(_CALL.match(each) for each in statements) else Effect.READS


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


def _on_mysql(statements: list[str]) -> Effect:
    if any(_ASKS_MYSQL.search(each) for each in statements):
        return Effect.WRITES
    if len(statements) == 1 and _END_MYSQL.match(statements[0]):
        return Effect.ENDS
    return Effect.READS if all(_READS_MYSQL.match(each) for each in statements) else Effect.OTHER
