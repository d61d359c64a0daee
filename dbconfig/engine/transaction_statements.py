"""Which statements end a transaction: COMMIT and similar ones, alone or among several in one text."""

from __future__ import annotations

import re
from typing import Final

from dbconfig.engine.statement_parts import first_word_at, parts
from dbconfig.errors.late_pattern import late_pattern

# The first words of nearly every statement; another statement may follow.
HARMLESS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
# Statements that end a transaction, or begin another one, which on MySQL commits; after a ROLLBACK that the driver does
# not see, psycopg2 commits each statement separately.
_CONTROL: Final = late_pattern(
    r"(?:COMMIT|END|ABORT|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b)|BEGIN(?!\s+NOT\s+ATOMIC)|START\s+TRANSACTION"
    + r"|PREPARE\s+TRANSACTION|XA|SET\s+(?:(?:SESSION|LOCAL)\s+|@@(?:session\.|local\.)?)?autocommit)\b",
    re.IGNORECASE | re.DOTALL,
)
# https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/; a temporary table does not
_IMPLICIT: Final = late_pattern(
    r"(?:(?:ALTER|CREATE|DROP)\s+(?!(?:OR\s+REPLACE\s+)?TEMPORARY)"
    + r"|RENAME|TRUNCATE|GRANT|REVOKE|LOCK\s+TABLES?|ANALYZE|CACHE|CHECK|CHANGE|FLUSH|LOAD\s+INDEX|OPTIMIZE|REPAIR"
    + r"|RESET|INSTALL|UNINSTALL|START|STOP|SET\s+PASSWORD|CLONE|IMPORT)\b",
    re.IGNORECASE | re.DOTALL,
)
# Statements that contain others, up to their own END.
_COMPOUND: Final = late_pattern(
    r"(?:BEGIN\s+NOT\s+ATOMIC|(?:CREATE|ALTER)\b.*?\b(?:FUNCTION|PROCEDURE|TRIGGER|EVENT|PACKAGE))\b",
    re.IGNORECASE | re.DOTALL,
)


def ends_transaction(statement: str, system: str) -> bool:
    """Return whether a text has a statement that ends a transaction; `system` is a family of databases."""
    return _has(_CONTROL, statement, system)


def begins_with_an_end(statement: str, system: str) -> bool:
    """Return whether a text begins with a statement that ends a transaction."""
    return _CONTROL.match(statement, first_word_at(statement, system)) is not None


def commits_implicitly(statement: str, system: str) -> bool:
    """Return whether a text has a statement that commits what came before it, as MySQL's DDL does."""
    return system == "mysql" and _has(_IMPLICIT, statement, system)


def _has(pattern: re.Pattern[str], statement: str, system: str) -> bool:
    start = first_word_at(statement, system)
    if ";" not in statement or _COMPOUND.match(statement, start):
        return pattern.match(statement, start) is not None
    return any(pattern.match(part) for part in parts(statement, system))
