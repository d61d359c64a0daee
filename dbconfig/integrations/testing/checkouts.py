"""Who holds a connection at the end of a test, and which line took it."""

from __future__ import annotations

import gc
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from dbconfig.engine.pool.diagnostics.call_sites import describe, running


class Checkouts:
    """Who holds a connection of any pool."""

    def __init__(self) -> None:
        self._holders: dict[int, tuple[Any, str]] = {}
        self.refusal = ""  # why nobody may take one now
        self.noted = True  # what is taken belongs to the test that runs
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
        """Return the lines that took what is still out, and forget them."""
        gc.collect()  # a session that nobody refers to any more gives its connection back
        found = [line for _, line in self._holders.values()]
        self._holders.clear()
        return found


def _line() -> str:
    """Return the application's line that is running."""
    found = running(1)
    return describe(found[0]) if found else "an unknown line"
