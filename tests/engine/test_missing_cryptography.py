"""MySQL 8 takes a password without TLS only from a driver that has `cryptography`: the error says how to do without."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.registries import registry

DRIVERS = (("pymysql", False), ("aiomysql", True), ("asyncmy", True))


@pytest.mark.parametrize(("driver", "asynchronous"), DRIVERS)
def test_a_login_that_needs_cryptography_says_how_to_go_without(driver: str, asynchronous: bool) -> None:
    pytest.importorskip(driver)
    with registry(f"mysql+{driver}://app:secret@db/shop", pool_timeout="1s") as db:

        def refuse(*_: Any, **__: Any) -> Any:  # as pymysql._auth and asyncmy.auth do without the package
            raise RuntimeError("'cryptography' package is required for sha256_password or caching_sha2_password")

        async def connect_asynchronously() -> None:
            try:
                engine = db.async_engine()
                engine.dialect.loaded_dbapi.connect = refuse  # type: ignore[attr-defined]
                async with engine.connect():
                    pass
            finally:
                await db.async_dispose()

        def connect() -> None:
            if asynchronous:
                asyncio.run(connect_asynchronously())
            module = db.engine().dialect.loaded_dbapi  # type: ignore[attr-defined]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "connect", refuse)
                with db.engine().connect():
                    pass

        with pytest.raises(OperationalError) as caught:
            connect()
    assert "pip install cryptography" in str(caught.value)
    assert "sslmode: require" in str(caught.value)
