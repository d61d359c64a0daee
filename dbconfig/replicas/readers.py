"""The factories of a database's read-only sessions, for one server or several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from dbconfig.replicas.routing import AsyncRouter, RoutedSession, RoutedSnapshot, Router
from dbconfig.sessions.session import ReadOnlySession, SnapshotSession
from dbconfig.sessions.session_classes import SQLMODEL, SessionClasses
from dbconfig.sessions.sessionmaker import Readers, async_makers, async_session_arguments, session_arguments
from dbconfig.settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession


def open_readers(
    settings: DatabaseSettings,
    label: str,
    open_engine: Callable[..., Engine],
    beside: Engine | None,
    classes: SessionClasses = SQLMODEL,
) -> Readers[Any]:
    """Return the factories of read-only sessions; nothing is connected.

    Args:
        settings: of the database.
        label: its name in logs.
        open_engine: creates a read-only engine from settings, a name, and options.
        beside: the engine whose database in memory is read.
        classes: of the sessions.
    """
    arguments = session_arguments(settings)
    if settings.replicas:
        router = Router(settings, label, partial(open_engine, patient=False))
        return Readers(
            partial(classes.of(RoutedSession), router=router, **arguments),
            partial(classes.of(RoutedSnapshot), router=router, **arguments),
            router.choose,
            router,
        )
    engine = open_engine(settings, f"{label}/reads", beside=beside)
    return Readers(
        partial(classes.of(ReadOnlySession), engine, **arguments),
        partial(classes.of(SnapshotSession), engine, **arguments),
        lambda: engine,
    )


def open_async_readers(
    settings: DatabaseSettings,
    label: str,
    open_engine: Callable[..., AsyncEngine],
    beside: Engine | None,
    classes: SessionClasses = SQLMODEL,
) -> Readers[AsyncSession]:
    """Return the factories of read-only sessions in the running loop; see `open_readers`."""
    arguments = async_session_arguments(settings)
    if settings.replicas:
        router = AsyncRouter(settings, label, open_engine)
        plain, snapshot = async_makers(None, (RoutedSession, RoutedSnapshot), {**arguments, "router": router}, classes)
        return Readers(plain, snapshot, router.choose, router)
    engine = open_engine(settings, f"{label}/reads", beside=beside)
    plain, snapshot = async_makers(engine, (ReadOnlySession, SnapshotSession), arguments, classes)
    return Readers(plain, snapshot, lambda: engine.sync_engine)
