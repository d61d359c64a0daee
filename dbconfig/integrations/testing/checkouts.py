"""Connections that are still checked out at the end of a test, and the lines that took them."""

from __future__ import annotations

import gc
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from dbconfig.engine.pool.diagnostics.call_sites import describe, running


class Checkouts:
    """The holders of connections, of all pools."""

    def __init__(self) -> None:
        self._holders: dict[int, tuple[Any, str]] = {}
        self.refusal = ""  # why checkouts are rejected now
        self.noted = True  # checkouts belong to the running test
        event.listen(Pool, "checkout", self._taken)
        event.listen(Pool, "checkin", self._given_back)

    def stop(self) -> None:
        event.remove(Pool, "checkout", self._taken)
        event.remove(Pool, "checkin", self._given_back)

    def _taken(self, connection: Any, record: Any, proxy: Any) -> None:
        if self.refusal:
            raise RuntimeError(self.refusal)
        if self.noted:
            self._holders[id(record)] = (record, _line())

    def _given_back(self, connection: Any, record: Any) -> None:
        self._holders.pop(id(record), None)

    def left(self) -> list[str]:
        """Return the lines of connections still checked out, and forget them."""
        gc.collect()  # an unreferenced session returns its connection
        found = [line for _, line in self._holders.values()]
        self._holders.clear()
        return found


def _line() -> str:
    """Return the running line of the application."""
    found = running(1)
    return describe(found[0]) if found else "an unknown line"
