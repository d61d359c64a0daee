"""Which pools are ours; nobody who asks has to load the asynchronous one, or asyncio's part of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from dbconfig.engine.pool.options import Ours

if TYPE_CHECKING:
    from dbconfig.engine.pool.tasks import TaskPool
    from dbconfig.engine.pool.threads import FairPool


def is_ours(pool: object) -> TypeGuard[FairPool | TaskPool]:
    return isinstance(pool, Ours)
