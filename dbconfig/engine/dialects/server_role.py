"""The role that a server reports: whether it accepts writes."""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from typing import Any

from dbconfig.errors.light_dataclass import dataclass
from dbconfig.settings.known_drivers import family


class Role(Enum):
    """What a server is among the hosts of its database."""

    PRIMARY = "the primary"  # it accepts writes, and no other one does
    ONE_OF_SEVERAL = "one of several primaries"  # such as each node of a Galera cluster
    READ_ONLY = "a primary whose transactions are read-only by default"  # only asked for strictly
    OTHER = "not a primary"  # a standby, or not ready


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server reports about itself.

    Attributes:
        role: whether it accepts writes.
        words: the same as text.
        term: a number that grows with each promotion, where the system has one: of two servers that call themselves
            primary, the one with the lower number was left behind.
    """

    role: Role
    words: str
    term: int = 0


def ask(backend: str, connection: Any, *, strictly: bool) -> Answer:
    """Ask a server for its role, on a new DBAPI connection.

    Args:
        backend: the database system.
        connection: nothing has been executed on it.
        strictly: distinguish a primary whose transactions are read-only by default.
    """
    module: Any = import_module(f"{__package__}.{family(backend)}.server_role")
    answer: Answer = module.ask(connection, strictly=strictly)
    return answer
