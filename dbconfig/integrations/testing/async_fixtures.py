"""The asynchronous pytest fixtures, run by the plugin that runs the test: pytest-asyncio's or anyio's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlmodel.ext.asyncio.session import AsyncSession

    from dbconfig.integrations.testing.testbed import Testbed
    from dbconfig.registry.registry import Registry


def databases(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the databases that the test's mark names."""
    return databases_of(request.node)


def databases_of(node: pytest.Item) -> tuple[str, ...]:
    mark = node.get_closest_marker("db")
    names: tuple[str, ...] = mark.args if mark is not None else ()
    return names or ("default",)


async def _override(request: pytest.FixtureRequest, _db_testbed: Testbed) -> AsyncIterator[dict[str, Any]]:
    from contextlib import AsyncExitStack

    from dbconfig.integrations.testing.isolation import AsyncIsolation, async_isolated

    bed, found = _db_testbed, dict[str, AsyncIsolation]()
    names = bed.needed(databases(request))
    with bed.cleaned(names) as commits:
        async with AsyncExitStack() as stack:
            for name in names:
                usual = bed.async_factory(name)
                commits.watch(usual.engine.sync_engine, name)
                isolation = async_isolated(usual, bed.homes_of(name), lambda name: found[name].connection)
                found[name] = await stack.enter_async_context(isolation)
            with bed.registry.parts.loops.here().override({name: each.factories() for name, each in found.items()}):
                yield found
        commits.databases |= {name for name, each in found.items() if each.committed}


async def _committed(request: pytest.FixtureRequest, _db_committed: Testbed) -> AsyncIterator[AsyncSession]:
    async with _db_committed.registry.async_session(databases(request)[0]) as session:
        yield session


async def _engine(_db_testbed: Testbed) -> AsyncIterator[AsyncEngine]:
    yield _db_testbed.async_factory("default").engine


def _of_asyncio(function: Any) -> Any:
    """Return a copy with pytest-asyncio's mark, which makes it run the fixture in its strict mode, too."""
    copy: Any = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy._force_asyncio_fixture = True
    return copy


_anyio_db_override = pytest.fixture(_override)
_anyio_db_committed = pytest.fixture(_committed)
_anyio_db_engine = pytest.fixture(_engine)
_of_pytest_asyncio = {
    "override": _of_asyncio(_override),
    "committed": _of_asyncio(_committed),
    "engine": _of_asyncio(_engine),
}
_asyncio_db_override = pytest.fixture(_of_pytest_asyncio["override"])
_asyncio_db_committed = pytest.fixture(_of_pytest_asyncio["committed"])
_asyncio_db_engine = pytest.fixture(_of_pytest_asyncio["engine"])


def _run(request: pytest.FixtureRequest, name: str) -> Any:
    if "anyio_backend" in request.fixturenames:
        return request.getfixturevalue(f"_anyio_db_{name}")
    config = request.config
    if not config.pluginmanager.has_plugin("asyncio"):
        raise pytest.UsageError(
            "asynchronous fixtures need a plugin that runs them: pip install pytest-asyncio, or anyio"
        )
    # In the test's own loop, whatever its scope: a connection serves the loop that opened it.
    mark = request.node.get_closest_marker("asyncio")
    scope = mark.kwargs.get("loop_scope") if mark is not None else None
    _of_pytest_asyncio[name]._loop_scope = scope or config.getini("asyncio_default_test_loop_scope")
    return request.getfixturevalue(f"_asyncio_db_{name}")


@pytest.fixture
def async_db_engine(request: pytest.FixtureRequest) -> AsyncEngine:
    """The asynchronous engine of the test database of `default`, in the loop of the test."""
    engine: AsyncEngine = _run(request, "engine")
    return engine


@pytest.fixture
def async_db_override(request: pytest.FixtureRequest, _db_testbed: Testbed) -> Registry:
    """The registry, with its asynchronous sessions on the test's connection during the test."""
    _run(request, "override")
    return _db_testbed.registry


@pytest.fixture
def async_db_session(request: pytest.FixtureRequest, async_db_override: Registry) -> AsyncSession:
    """A session that is rolled back after the test. A commit is a savepoint, which the application sees."""
    session: AsyncSession = _run(request, "override")[databases(request)[0]].home()
    return session


@pytest.fixture
def async_db_session_committed(request: pytest.FixtureRequest) -> AsyncSession:
    """A session that really commits; every row is removed after the test."""
    session: AsyncSession = _run(request, "committed")
    return session
