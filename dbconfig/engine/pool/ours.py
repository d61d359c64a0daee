"""Tells dbconfig's pools from others, without importing the asynchronous one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from dbconfig.engine.pool.both import Ours

if TYPE_CHECKING:
    from dbconfig.engine.pool.tasks import TaskPool
    from dbconfig.engine.pool.threads import FairPool


def is_ours(pool: object) -> TypeGuard[FairPool | TaskPool]:
    return isinstance(pool, Ours)
