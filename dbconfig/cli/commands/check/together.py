"""The combined demand of a profile's databases on a server: shards, and other databases on the same one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dbconfig.cli.commands.check.server import Budget, Server, budget
from dbconfig.cli.commands.check.verdicts import Deployment, number, placed
from dbconfig.cli.output import counted
from dbconfig.errors.problem import Problem
from dbconfig.settings import client_defaults
from dbconfig.settings.database import DatabaseSettings

_NAMED: Final = 4  # names shown of a longer list; the rest is counted


@dataclass(frozen=True, slots=True)
class Guest:
    """A pool of the profile on a server: of a database, a shard, or a replica."""

    name: str
    database: str
    settings: DatabaseSettings
    server: Server


@dataclass(frozen=True, slots=True)
class Shared:
    """A server with more than one of them."""

    address: str
    guests: tuple[Guest, ...]
    made: Budget  # of all of them: `each` is their sum
    most: int | None
    limited_by: str

    def text(self, deployment: Deployment) -> str:
        names = [guest.name for guest in self.guests]
        more = len(names) - _NAMED
        shown = ", ".join(names[:_NAMED]) + (f", and {more} more" if more > 0 else "")
        return (
            f"{self.address}: {counted(len(names), 'database')} ({shown}): {number(self.made.each)} × {deployment} = "
            f"{number(self.made.wanted)} connections; {self.made.free} free of {self.most} ({self.limited_by})"
        )

    def problem(self) -> Problem | None:
        if self.made.fits:
            return None
        first = self.guests[0]
        message = (
            f"{self.made.processes} processes may open {number(self.made.wanted)} connections to "
            f"{counted(len(self.guests), 'database')} of {self.address}, and the server has {self.made.free} free"
        )
        return placed("pool-over-budget", "pool_size", message, first.settings, first.database, help=self._help())

    def _help(self) -> str:
        each = replace(self.made, pools=self.made.pools * len(self.guests)).sizes()
        if each is None:
            return "even one connection each is too many: put PgBouncer in front, or set `engine_idle_timeout`"
        return f"pool_size: {each[0]} and max_overflow: {each[1]} for each of them would fit"

    def described(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "databases": [guest.name for guest in self.guests],
            "wanted": number(self.made.wanted),
            "free": self.made.free,
        }


def shared(guests: Sequence[Guest], deployment: Deployment) -> Iterator[Shared]:
    """Yield each server with more than one of them, identified by what it reports, or else by its address.

    Args:
        guests: those that answered.
        deployment: how often the application runs.
    """
    servers: dict[str, list[Guest]] = {}
    for guest in guests:
        if guest.server.connections_free is not None:
            servers.setdefault(guest.server.identity or _address(guest.settings), []).append(guest)
    for found in servers.values():
        if len(found) < 2:
            continue
        free, limited_by = max(guest.server.server_free or 0 for guest in found), "max_connections"
        of_role = [guest.server.role_free for guest in found if guest.server.role_free is not None]
        if of_role and len({guest.server.role for guest in found}) == 1 and max(of_role) < free:
            free, limited_by = max(of_role), "the limit of the role"
        budgets = [budget(guest.settings, deployment.pools or 1, deployment.processes, free) for guest in found]
        made = replace(budgets[0], each=sum(each.each for each in budgets))
        yield Shared(_address(found[0].settings), tuple(found), made, found[0].server.connections_max, limited_by)


def _address(settings: DatabaseSettings) -> str:
    address = client_defaults.completed(settings)
    hosts = address.query.get("host", ()) or (address.host or "localhost",)
    return ", ".join(map(str, hosts)) + (f":{address.port}" if address.port is not None else "")
