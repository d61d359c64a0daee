"""Validation of units of work: a function whose call does all of the work."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sqlmodel import Session

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

T = TypeVar("T")


def check(work: Callable[..., Any], *, asynchronous: bool) -> None:
    """Reject a function whose call would run nothing."""
    kinds = (work, getattr(type(work), "__call__", None))  # noqa: B004  # the `__call__` of an object may be `async`
    name = getattr(work, "__qualname__", None) or repr(work)
    if any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in kinds):
        raise TypeError(f"{name} is a generator function: calling it runs nothing; write a function without `yield`")
    if not asynchronous and any(inspect.iscoroutinefunction(one) for one in kinds):
        raise TypeError(f"{name} is a coroutine function: use `await db.async_run_in_transaction(…)`")


def called(work: Callable[[Session], T], session: Session) -> T:
    """Call the function of a unit, and reject a result that is unfinished work."""
    result = work(session)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()  # or it would warn that it was never awaited
        raise TypeError("the function returned an awaitable, which is not awaited here: use async_run_in_transaction")
    if inspect.isasyncgen(result):
        raise TypeError("the function returned an asynchronous generator, which is not iterated over here")
    _refuse_late(result, session)
    return result


def _refuse_late(result: Any, session: Any) -> None:
    """Reject a generator that would use the session after the COMMIT."""
    # Checked by type: a result with arbitrary attributes, such as a Mock, is not a generator.
    frame = result.gi_frame if inspect.isgenerator(result) else result.ag_frame if inspect.isasyncgen(result) else None
    if frame is not None and any(found is session for found in frame.f_locals.values()):
        raise TypeError("the function returned a generator of its session, which would run after the COMMIT")


async def awaited(work: Callable[[AsyncSession], Awaitable[T]], session: AsyncSession) -> T:
    """Do the same for an event loop."""
    result = work(session)
    if not inspect.isawaitable(result):
        raise TypeError("async_run_in_transaction awaits what its function returns: write `async def`")
    found = await result
    _refuse_late(found, session)
    return found
