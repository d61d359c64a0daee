"""The numbers of MySQL's errors are those of the names beside them: a wrong one would never be noticed by its text."""

from __future__ import annotations

import inspect
import re

from pymysql.constants import CR, ER

from dbconfig.engine.dialects.mysql import driver, errors, xa

# Those that PyMySQL, or its lowest version, does not have: the references of MySQL and MariaDB that the table names.
NEWER = {
    "ER_XA_RBTIMEOUT": {1613},
    "ER_XA_RBDEADLOCK": {1614},
    "ER_NEED_REPREPARE": {1615},
    "ER_ACCESS_DENIED_NO_PASSWORD_ERROR": {1698},
    "ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION": {1792},
    "ER_MUST_CHANGE_PASSWORD": {1820},
    "ER_READ_ONLY_MODE": {1836},
    "ER_MUST_CHANGE_PASSWORD_LOGIN": {1862},
    "ER_INNODB_READ_ONLY": {1874},
    "ER_CONNECTION_KILLED": {1927},
    "ER_SERVER_OFFLINE_MODE": {3032},
    "ER_USER_LOCK_DEADLOCK": {3058},
    "ER_TRANSACTION_ROLLBACK_DURING_COMMIT": {3101},
    "ER_ACCOUNT_HAS_BEEN_LOCKED": {3118, 4151},  # MySQL's and MariaDB's
    "ER_SECURE_TRANSPORT_REQUIRED": {3159},
    "ER_SESSION_WAS_KILLED": {3169},
    "ER_LOCK_NOWAIT": {3572},
    "ER_CLIENT_INTERACTION_TIMEOUT": {4031},
}
NAMED = re.compile(r"\[[mca]\] ((?:ER|CR)_\w+)")


def numbers_of(name: str) -> set[int]:
    kind, _, rest = name.partition("_")
    number = getattr(ER, rest, None) if kind == "ER" else getattr(CR, name, None)
    return {number} if isinstance(number, int) else NEWER.get(name, set())


def test_each_number_is_that_of_its_name() -> None:
    found: dict[int, str] = {}
    name = ""
    for line in inspect.getsource(errors).splitlines():
        if named := NAMED.search(line):
            name = named[1]
        if row := re.match(r"    (\d+): ", line):
            found[int(row[1])] = name
            name = ""
    assert found.keys() == errors.CODES.keys()
    assert [(number, name) for number, name in found.items() if number not in numbers_of(name)] == []
    rows = {number: errors.meaning(Exception(number, "")) for number in found}
    assert None not in rows.values()


def test_the_numbers_of_xa_and_of_an_interrupted_statement() -> None:
    assert xa._UNKNOWN == ER.XAER_NOTA
    assert xa._OUTSIDE == (ER.XAER_RMFAIL, ER.XAER_OUTSIDE)
    assert driver._INTERRUPTED == ER.QUERY_INTERRUPTED
