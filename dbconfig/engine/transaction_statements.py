"""Which statements end a transaction: COMMIT and its like, alone or among several in one text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from dbconfig.errors.late_pattern import late_pattern

# What nearly every statement begins with; it may be followed by another one.
HARMLESS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_SKIPPED: Final = r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*"
# Statements that end a transaction, or begin another one, which on MySQL commits; after a ROLLBACK that the driver does
# not know of, psycopg2 commits each statement for itself.
_CONTROL: Final = late_pattern(
    _SKIPPED
    + r"(?:COMMIT|END|ABORT|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b)|BEGIN(?!\s+NOT\s+ATOMIC)|START\s+TRANSACTION"
    + r"|PREPARE\s+TRANSACTION|XA|SET\s+(?:(?:SESSION|LOCAL)\s+|@@(?:session\.|local\.)?)?autocommit)\b",
    re.IGNORECASE | re.DOTALL,
)
# https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/; a temporary table does not
_IMPLICIT: Final = late_pattern(
    _SKIPPED
    + r"(?:(?:ALTER|CREATE|DROP)\s+(?!(?:OR\s+REPLACE\s+)?TEMPORARY)"
    + r"|RENAME|TRUNCATE|GRANT|REVOKE|LOCK\s+TABLES?|ANALYZE|CACHE|CHECK|CHANGE|FLUSH|LOAD\s+INDEX|OPTIMIZE|REPAIR"
    + r"|RESET|INSTALL|UNINSTALL|START|STOP|SET\s+PASSWORD|CLONE|IMPORT)\b",
    re.IGNORECASE | re.DOTALL,
)
# Statements that have others in them, up to an END of their own.
_COMPOUND: Final = late_pattern(
    _SKIPPED + r"(?:BEGIN\s+NOT\s+ATOMIC|(?:CREATE|ALTER)\b.*?\b(?:FUNCTION|PROCEDURE|TRIGGER|EVENT|PACKAGE))\b",
    re.IGNORECASE | re.DOTALL,
)
_COMMENTS: Final = r"|--[^\n]*|/\*.*?\*/|(?P<end>;)"
_QUOTED: Final = {
    "postgresql": r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"[^\"]*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$",
    "mysql": r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`",
}
_TOKENS: Final = {system: late_pattern(quoted + _COMMENTS, re.DOTALL) for system, quoted in _QUOTED.items()}


def ends_transaction(statement: str, system: str) -> bool:
    """Return whether a text has a statement that ends a transaction; `system` is a family of databases."""
    return any(True for _ in _found(_CONTROL.match, statement, system))


def begins_with_an_end(statement: str) -> bool:
    """Return whether a text begins with a statement that ends a transaction."""
    return _CONTROL.match(statement) is not None


def commits_implicitly(statement: str, system: str) -> bool:
    """Return whether a text has a statement that commits what came before it, as MySQL's DDL does."""
    return system == "mysql" and any(True for _ in _found(_IMPLICIT.match, statement, system))


def _found(match: Callable[[str, int], re.Match[str] | None], statement: str, system: str) -> Iterator[re.Match[str]]:
    found = match(statement, 0)
    if found:
        yield found
    if ";" not in statement or system not in _TOKENS or _COMPOUND.match(statement):
        return
    for token in _TOKENS[system].finditer(statement):
        if token["end"] and (found := match(statement, token.end())):
            yield found
