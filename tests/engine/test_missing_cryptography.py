"""MySQL 8 takes a password without TLS only from a driver that has `cryptography`: the error says how to do without."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from dbconfig import Profile
from dbconfig.engine.connection_failures import classify, problem
from tests.registries import registry
from tests.support import mysql

WORDS = "'cryptography' package is required"
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
    notes = "\n".join(caught.value.__notes__)
    assert "dbconfig[tls-required]: the server at db:3306 accepts the password only over TLS" in notes
    assert "Remove" not in notes  # of `sslmode: disable`, which nobody has written


@pytest.mark.parametrize("driver", [driver for driver, _ in DRIVERS])
def test_check_says_so_too(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(driver)
    settings = Profile(name="a", url=f"mysql+{driver}://app:secret@db/shop").databases["default"]
    failure = classify(RuntimeError(f"{WORDS} for sha256_password or caching_sha2_password"), settings)
    found = problem(failure, settings)
    assert found.slug == "tls-required"
    assert "`cryptography`" in found.message
    assert "sslmode: require" in found.help


@pytest.mark.parametrize(("driver", "asynchronous"), DRIVERS)
def test_a_mysql_that_has_just_started_takes_a_password_with_tls_only(
    request: pytest.FixtureRequest, driver: str, asynchronous: bool
) -> None:
    """It keeps what it needs for a login without encryption from the first one of an account that had it."""
    if not mysql.wanted():
        pytest.skip("MariaDB does not ask for it; DBCONFIG_TEST_MYSQL=… makes the server a MySQL")
    server: Any = request.getfixturevalue("mariadb")
    try:
        import cryptography  # noqa: F401  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        pytest.skip("the password is encrypted with the server's key")
    server._create_account(f"{driver}_fresh", "secret")  # nobody has logged in as this one
    url = f"mysql+{driver}://{driver}_fresh:secret@{server.host}:{server.port}/{server.database}"
    with registry(url, pool_timeout="2s") as db:

        async def connect_asynchronously() -> None:
            try:
                async with db.async_engine().connect():
                    pass
            finally:
                await db.async_dispose()

        def connect() -> None:
            if asynchronous:
                asyncio.run(connect_asynchronously())
            else:
                db.engine().connect()

        with pytest.raises(OperationalError, match="pip install cryptography"):
            connect()
    server._administrate(f"DROP USER {driver}_fresh")
