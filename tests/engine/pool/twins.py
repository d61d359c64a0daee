"""One engine, sync or async, with the same few verbs, so that each behaviour is tested in both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from dbconfig.engine import create
from dbconfig.engine import pool as dbconfig_pool
from dbconfig.engine.dialects import driver_protocol
from tests.engine.pool.support import JUDGE, Settings, url_of

NAME = "testing/default"


class Sync:
    kind = "sync"

    def __init__(self, server: Any, at: Any = None, *, read_only: bool = False, **settings: Any) -> None:
        chosen = Settings(**settings)
        url = url_of(server, at)
        arguments: dict[str, Any] = dbconfig_pool.pool_arguments(chosen, name=NAME, patient=True, judge=JUDGE)
        if url.startswith("mysql"):
            arguments["connect_args"] = {"ssl_disabled": True}
        self.engine: Engine = create_engine(url, **arguments)
        driver = driver_protocol.of(self.engine.dialect)
        dbconfig_pool.attach(self.engine, chosen, name=NAME, read_only=read_only, judge=JUDGE, driver=driver)

    def connect(self) -> Any:
        return self.engine.connect()

    def execute(self, connection: Any, statement: str) -> Any:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None

    def close(self, connection: Any) -> None:
        connection.close()

    def select(self, statement: str = "SELECT 1") -> Any:
        connection = self.connect()
        try:
            return self.execute(connection, statement)
        finally:
            self.close(connection)

    def dispose(self) -> None:
        self.engine.dispose()


class Stock(Sync):
    """``poolclass: QueuePool``: our line is switched off, the behaviours are not."""

    kind = "stock"

    def __init__(self, server: Any, at: Any = None, **settings: Any) -> None:
        super().__init__(server, at, **settings, poolclass="QueuePool")


class Async(Sync):
    kind = "async"

    def __init__(self, server: Any, at: Any = None, *, read_only: bool = False, **settings: Any) -> None:
        driver = "postgresql+asyncpg" if server.driver.startswith("postgres") else "mysql+aiomysql"
        pytest.importorskip("greenlet")
        pytest.importorskip(driver.partition("+")[2])
        from sqlalchemy.ext.asyncio import create_async_engine

        chosen = Settings(**settings)
        self.runner = asyncio.Runner()
        create.check_version()
        self.async_engine = create_async_engine(
            url_of(server, at, driver),
            **dbconfig_pool.pool_arguments(chosen, name=NAME, patient=True, is_async=True, judge=JUDGE),
        )
        self.engine = self.async_engine.sync_engine
        driver = driver_protocol.of(self.engine.dialect)
        dbconfig_pool.attach(self.engine, chosen, name=NAME, read_only=read_only, judge=JUDGE, driver=driver)

    def connect(self) -> Any:
        async def connect() -> Any:
            return await self.async_engine.connect()

        return self.runner.run(connect())

    def execute(self, connection: Any, statement: str) -> Any:
        async def execute() -> Any:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None

        return self.runner.run(execute())

    def close(self, connection: Any) -> None:
        self.runner.run(connection.close())

    def dispose(self) -> None:
        self.runner.run(self.async_engine.dispose())
        self.runner.close()
