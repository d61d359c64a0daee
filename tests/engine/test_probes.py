"""ping and wait, and what an exception of a connection says beside the driver's words."""

import gc
import logging
import threading
import time
import traceback
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from dbconfig import Profile, Registry
from dbconfig.engine.connection_failures import classify
from tests.support.ports import free_port
from tests.support.servers import Server


def registry(url: str, **keys: object) -> Registry:
    return Registry.from_profile(Profile(name="test", url=url, **keys))  # type: ignore[call-arg]


def test_ping_tells_the_time_of_an_answer(server: Server) -> None:
    with registry(server.url()) as db:
        assert 0 < db.ping() < 5


def test_ping_ends_at_its_time_though_the_server_is_silent(server: Server) -> None:
    with registry(server.url()) as db:
        db.ping()
        server.pause()
        with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
            db.ping(timeout=0.3)
        server.resume()


def test_wait_returns_when_the_server_has_started(server: Server) -> None:
    server.stop()
    with registry(server.url()) as db:
        starter = threading.Timer(0.5, server.start)
        starter.start()
        db.wait(timeout=30)
        starter.join()
        assert db.ping() > 0


def test_wait_gives_up_at_its_time_and_keeps_the_last_error() -> None:
    with registry(f"postgresql://app@127.0.0.1:{free_port()}/shop") as db:
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as ended:
            db.wait(timeout=0.5)
        assert time.monotonic() - begin > 0.4
        assert isinstance(ended.value.__cause__, OperationalError)


@pytest.mark.parametrize("wrong", ["password", "database"])
def test_wait_ends_at_once_where_waiting_cannot_help(server: Server, wrong: str) -> None:
    at_once = pytest.raises(DBAPIError)  # not TimeoutError
    with registry(server.url(**{wrong: "wrong"})) as db, at_once:  # type: ignore[arg-type]
        db.wait(timeout=60)


def test_an_error_of_a_connection_says_the_stage_the_origin_and_what_to_do() -> None:
    with registry(f"postgresql://app:CANARY-x@127.0.0.1:{free_port()}/shop?application_name=CANARY-y") as db:
        with pytest.raises(OperationalError) as failed:
            db.engine().connect()
        text = "".join(traceback.format_exception(failed.value))
        assert "dbconfig[refused]: nothing listens on 127.0.0.1:" in text
        assert "(stage: tcp)" in text
        assert "url comes from default; Start the server" in text
        assert "CANARY" not in "".join(failed.value.__notes__)
        assert classify(failed.value, db.profile.databases["default"]).slug == "refused"


def test_an_error_of_a_statement_gets_no_note_of_a_connection(server: Server) -> None:
    with registry(server.url()) as db, db.session() as session:
        with pytest.raises(DBAPIError) as failed:
            session.connection().exec_driver_sql("SELECT no_such_column")
        assert not getattr(failed.value, "__notes__", [])


# PyMySQL does not close a socket that it cannot connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("url", ["mysql+pymysql://app@/shop?unix_socket={}", "postgresql+psycopg2://app@/shop?host={}"])
def test_wait_waits_for_a_socket_that_is_not_there_yet(url: str, tmp_path: Path) -> None:
    with registry(url.format(tmp_path / "socket"), pool_timeout=1) as db, pytest.raises(TimeoutError):
        db.wait(timeout=0.5)
    for thread in threading.enumerate():
        if thread.name == "dbconfig-ping":
            thread.join(30)  # the last attempt, on a busy machine
    gc.collect()  # its warning belongs to this test


def test_wait_says_what_it_waits_for_while_it_waits_and_when_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.INFO, "dbconfig")
    told_at_the_end = pytest.raises(TimeoutError, match=f"test: 127.0.0.1:{port} did not answer within 0.5 s")
    with registry(f"postgresql://app@127.0.0.1:{port}/shop") as db, told_at_the_end:
        db.wait(timeout=0.5)
    told = [record.getMessage() for record in caplog.records if record.name == "dbconfig.health"]
    assert len(told) == 1  # once, however often it is tried
    assert told[0].startswith(f"waiting for test: 127.0.0.1:{port}: refused: ")
