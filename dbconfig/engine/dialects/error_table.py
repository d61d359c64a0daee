"""The meaning of an error: one row of a database system's table of errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from dbconfig.errors.light_dataclass import dataclass


class Fate(Enum):
    """What an error implies for the work that it ended."""

    CONFLICT = "conflict"  # rolled back by the server in favor of another transaction
    LOST = "lost connection"  # the connection is lost, and with it everything that was not committed
    ABSENT = "no connection"  # there was none: nothing was sent
    UNCERTAIN = "outcome unknown"  # the server itself does not know whether its COMMIT took effect
    READ_ONLY = "read-only server"  # the server rejects writes: it is no longer the primary
    FINAL = "final"  # a retry would fail again


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row: what an error of a database system means.

    Attributes:
        fate: the outcome for the work.
        slug: the entry of the catalogue, where the error ended a connection attempt.
        stage: the stage of the connection attempt.
        again: whether the connection attempt is retried; None: depends on the fate.
        ends: whether the connection can no longer be used; None: depends on the fate.
        rolls_back: whether the server has rolled back the whole transaction, although it still accepts statements.
        only: the row applies only to messages that contain these words, which the server does not translate: the name
            of an option, or of the function that raised the error.
    """

    fate: Fate
    slug: str = "connection-failed"
    stage: str = "query"
    again: bool | None = None
    ends: bool | None = None
    rolls_back: bool = False
    only: str = ""

    @property
    def connects_again(self) -> bool:
        """Whether the same connection attempt may succeed in a moment."""
        return self.fate in (Fate.LOST, Fate.ABSENT, Fate.CONFLICT) if self.again is None else self.again

    @property
    def ends_connection(self) -> bool:
        return self.fate in (Fate.LOST, Fate.ABSENT) if self.ends is None else self.ends

    def valid_for(self, text: str) -> bool:
        return not self.only or re.search(self.only, text) is not None


JUDGED: Final = "_dbconfig_meaning"  # the attribute of an error that was classified where it was raised

UNKNOWN: Final = Meaning(Fate.FINAL, stage="login")

# Meanings shared by several systems, or by a code and a text.
HOST_UNKNOWN: Final = Meaning(Fate.ABSENT, "host-unknown", "resolve")  # a service's name appears when it starts
REFUSED: Final = Meaning(Fate.ABSENT, "refused", "tcp")
UNREACHABLE: Final = Meaning(Fate.ABSENT, "unreachable", "tcp")
TIMED_OUT: Final = Meaning(Fate.ABSENT, "timed-out", "tcp")
CONNECTION_LOST: Final = Meaning(Fate.LOST, "connection-lost", "login")
STARTING_UP: Final = Meaning(Fate.ABSENT, "starting-up", "login")
# None of several hosts has the requested role, at this moment of a failover.
NO_PRIMARY: Final = Meaning(Fate.ABSENT, "no-primary", "login")
# The server accepts writes; what makes transactions read-only is an attribute of the role, the database, or the client.
READ_ONLY_BY_DEFAULT: Final = Meaning(Fate.FINAL, "read-only-by-default", "login")
TOO_MANY: Final = Meaning(Fate.ABSENT, "too-many-connections", "login")
LOGIN_REJECTED: Final = Meaning(Fate.FINAL, "login-rejected", "login")
DATABASE_MISSING: Final = Meaning(Fate.FINAL, "database-missing", "login")
DATABASE_DENIED: Final = Meaning(Fate.FINAL, "database-denied", "login")
NOT_A_DATABASE: Final = Meaning(Fate.FINAL, "not-a-database", "tls")
TLS_REFUSED: Final = Meaning(Fate.FINAL, "tls-refused", "tls")
TLS_REQUIRED: Final = Meaning(Fate.FINAL, "tls-required", "tls")
TLS_UNTRUSTED: Final = Meaning(Fate.FINAL, "tls-untrusted", "tls")
VARIABLE_REFUSED: Final = Meaning(Fate.FINAL, "variable-refused", "login")  # of `variables`, set at the connect
CLIENT_SETTING: Final = Meaning(Fate.FINAL, "client-setting", "resolve")  # nothing was sent yet
TABLE_MISSING: Final = Meaning(Fate.FINAL, "missing-table")
CONFLICT: Final = Meaning(Fate.CONFLICT, "busy")
READ_ONLY: Final = Meaning(Fate.READ_ONLY, "read-only")
TOO_SLOW: Final = Meaning(Fate.FINAL, "busy", again=True)  # a time limit of the server's
NEVER: Final = Meaning(Fate.FINAL)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: SQLAlchemy's, the driver's, the system's."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        # `original_exception` is PyMySQL's.
        waiting += [getattr(found, "orig", None), getattr(found, "original_exception", None), found.__cause__]
