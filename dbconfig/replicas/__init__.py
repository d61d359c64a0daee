"""Read-only sessions over several servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbconfig.sessions.sessionmaker import Readers


def open_readers(*arguments: Any) -> Readers[Any]:
    """Return the factories of read-only sessions; see `readers`, which is imported only if there are replicas."""
    from dbconfig.replicas import readers

    return readers.open_readers(*arguments)
