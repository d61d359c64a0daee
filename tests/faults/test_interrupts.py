"""Ctrl-C in a statement: rolled back, soon, with the pool whole."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.support.servers import Server

SLEEP = {"postgresql": "SELECT pg_sleep(3)", "mariadb": "SELECT SLEEP(3)"}
PROGRAM = """
    import sys
    from sqlalchemy import text
    from dbconfig import Profile, Registry

    db = Registry.from_profile(Profile(name="keys", url=sys.argv[1], pool_size=1, max_overflow=0, pool_timeout="5s"))
    try:
        with db.transaction() as session:
            session.execute(text("INSERT INTO keys_pressed VALUES (1)"))
            print("running", flush=True)
            session.execute(text(sys.argv[2]))
            session.execute(text(sys.argv[2]))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    with db.session() as session:
        print(session.execute(text("SELECT count(*) FROM keys_pressed")).scalar_one(), db.stats().used, flush=True)
"""


@pytest.mark.slow
def test_p11_ctrl_c_in_a_statement_rolls_back_and_leaves_the_pool_whole(server: Server) -> None:
    server.sql("CREATE TABLE keys_pressed (id int)")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), server.url(), SLEEP[server.kind]],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(0.3)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    took = time.monotonic() - start
    assert process.stdout.readline() == "0 1\n"
    assert process.wait(20) == 0
    process.stdout.close()
    print(f"\nP11 {server.kind}: {took:.2f} s")
    assert took < 6
