"""The ledger: all that can go wrong, one after the other, under a bank that must not lose or double a transfer."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from dbconfig import Profile, Registry
from tests.support.bank import Bank, Result, transfer
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.servers import Server

CONTEXT = get_context("fork")


class Disaster:
    """The server, the network, the registry, and all that is done to them."""

    def __init__(self, server: Server, network: Proxy, db: Registry, secret: Path, run: Callable[..., object]) -> None:
        self.server, self.network, self.db, self.secret, self._run = server, network, db, secret, run
        self.children: list[int] = []

    def kill_backends(self) -> None:
        for _ in range(3):
            self.server.terminate()
            wait_until(lambda: bool(self.server.connections(user=self.server.user)), "those who come again")

    def restart_fast(self) -> None:
        self.server.restart("fast", down=0.3)

    def restart_immediate(self) -> None:
        self.server.restart("immediate", down=0.3)

    def cut_in_a_query(self) -> None:
        self._trap(b"UPDATE bank_account", delivered=False)
        self._trap(b"INSERT INTO bank_journal", delivered=True)

    def cut_in_a_commit(self) -> None:
        commit = b"\x03COMMIT" if self.server.kind == "mariadb" else b"COMMIT"
        self._trap(commit, delivered=True)
        self._trap(commit, delivered=False)

    def _trap(self, pattern: bytes, *, delivered: bool) -> None:
        before = self.network.cuts
        self.network.cut_when(pattern, after_forwarding=delivered, times=3)
        wait_until(lambda: self.network.cuts >= before + 3, "three cuts")

    def reload(self) -> None:
        for _ in range(3):
            self.db.reload()

    def rotate(self) -> None:
        new = f"rotated-{time.monotonic_ns()}"
        self.server.set_password(self.server.user, new)
        file = self.secret.with_suffix(".new")
        file.touch(mode=0o600)
        file.write_text(new)
        file.replace(self.secret)
        self.server.terminate()
        self.db.reload()

    def fork_and_kill(self) -> None:
        """Children that work on as this process does, then end in three ways: killed, left, ended in order."""
        children = [CONTEXT.Process(target=work_in_child, args=(self._run, f"child{n}-", n)) for n in range(3)]
        for child in children:
            child.start()
        for child in children[1:]:
            child.join(60)
        assert children[0].pid is not None
        os.kill(children[0].pid, signal.SIGKILL)
        children[0].join(60)
        assert [child.exitcode for child in children] == [-signal.SIGKILL, 0, 0]


def work_in_child(run: Callable[..., object], name: str, way: int) -> None:
    """Transfer in a child for a while; nobody counts what it was told, but the books must balance."""
    deadline = time.monotonic() + (30 if way == 0 else 0.5)
    turn = 0
    while time.monotonic() < deadline:
        turn += 1
        run(transfer(f"{name}{turn}", 1 + turn % 16, 1 + (turn + 5) % 16))
    if way == 1:
        os._exit(0)


EVENTS = (
    "kill_backends",
    "cut_in_a_query",
    "reload",
    "restart_fast",
    "cut_in_a_commit",
    "rotate",
    "fork_and_kill",
    "restart_immediate",
)


@pytest.fixture
def disaster(server: Server, proxy: Callable[[Server], Proxy], tmp_path: Path) -> Iterator[tuple[Disaster, Bank]]:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text(server.password)
    network = proxy(server)
    with ExitStack() as stack:
        # The audit goes directly, and with another user's password.
        server.create_user("auditor", "auditor-secret")
        address = server.url(user="auditor", password="auditor-secret")
        direct = stack.enter_context(Registry.from_profile(Profile(name="audit", url=address)))
        given = {"host": network.host, "port": network.port, "username": server.user, "database": server.database}
        profile = Profile(
            name="bank", drivername=server.driver, **given, password={"file": str(secret)}, pool_timeout="10s"
        )
        db = stack.enter_context(Registry.from_profile(profile))
        run = partial(db.run_in_transaction, attempts=50, timeout=60)
        own = partial(direct.run_in_transaction, attempts=50, timeout=60)
        bank = Bank(run)
        bank._direct = own
        yield Disaster(server, network, db, secret, run), bank
        network.pass_through()


@pytest.mark.slow
def test_the_books_balance_whatever_happens(disaster: tuple[Disaster, Bank], request: pytest.FixtureRequest) -> None:
    what, bank = disaster
    with bank.open(what._run) as shift:
        for name in EVENTS:
            getattr(what, name)()
            shift.healed()
            shift.wait_for_work()
    result = shift.result()
    print(f"\n{request.node.name}: {result}")
    judge(result)


def judge(result: Result) -> None:
    assert result.lost == set()
    assert result.doubled == set()
    assert result.conserved
    # The children's transfers were told to nobody here.
    assert {name for name in result.unasked if not name.startswith("child")} == set()
    assert dict(result.errors) == {}
    assert result.recovery is not None
    assert result.acknowledged > 100


# SQLite: several processes, some of which are killed.


def bank_of(path: Path) -> Registry:
    return Registry.from_profile(Profile(name="lite", url=f"sqlite:///{path}", lock_timeout="20s"))


def sqlite_worker(path: Path, name: str, told: Any, seconds: float) -> None:
    deadline, turn = time.monotonic() + seconds, 0
    with bank_of(path) as db:
        while time.monotonic() < deadline:
            turn += 1
            one = f"{name}-{turn}"
            try:
                db.run_in_transaction(transfer(one, 1 + turn % 16, 1 + (turn + 3) % 16), attempts=50, timeout=60)
            except Exception as error:
                os.write(told, f"error {type(error).__name__}: {error!s:.80}\n".replace("\n", " ").encode() + b"\n")
            else:
                os.write(told, f"done {one}\n".encode())


def test_the_books_balance_on_sqlite_with_four_processes_two_of_which_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    with bank_of(path) as db:
        bank = Bank(db.run_in_transaction)
        reading, writing = os.pipe()
        workers = [
            CONTEXT.Process(target=sqlite_worker, args=(path, f"p{n}", writing, 60 if n < 2 else 3)) for n in range(4)
        ]
        for worker in workers:
            worker.start()
        os.close(writing)
        chunks: list[bytes] = []
        reader = threading.Thread(target=lambda: chunks.extend(iter(partial(os.read, reading, 65536), b"")))
        reader.start()
        for worker in workers[:2]:
            before = len(chunks)
            wait_until(lambda before=before: len(chunks) > before + 20, "transfers")  # type: ignore[misc]  # bound early
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers:
            worker.join(90)
        reader.join(30)
        os.close(reading)
        lines = b"".join(chunks).decode().splitlines()
        acknowledged = {line.split()[1] for line in lines if line.startswith("done ")}
        errors = [line for line in lines if line.startswith("error")]
        result = bank.audit([])
    print(f"\nsqlite: {len(acknowledged)} acknowledged, {len(errors)} errors")
    assert errors == []
    assert result.conserved
    assert result.doubled == set()
    assert acknowledged <= result.unasked  # all that is in the journal, since nobody here was told
    assert len(result.unasked - acknowledged) <= 2  # committed by one that was killed before it could say so
    assert len(acknowledged) > 100


@pytest.mark.parametrize("name", ["kill_backends", "cut_in_a_commit", "restart_fast", "rotate"])
def test_the_books_of_asynchronous_units_of_work_balance(
    disaster: tuple[Disaster, Bank], name: str, request: pytest.FixtureRequest
) -> None:
    what, bank = disaster
    pytest.importorskip("asyncpg" if what.server.kind == "postgresql" else "asyncmy")
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever)
    runner.start()

    def run(work: Callable[[Any], None]) -> None:
        async def unit(session: Any) -> None:
            await session.run_sync(work)

        async def again() -> None:
            await what.db.async_run_in_transaction(unit, attempts=50, timeout=60)

        asyncio.run_coroutine_threadsafe(again(), loop).result()

    try:
        with bank.open(run) as shift:
            getattr(what, name)()
            shift.healed()
            shift.wait_for_work()
        result = shift.result()
    finally:
        asyncio.run_coroutine_threadsafe(what.db.async_dispose(), loop).result()
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        runner.join()
        loop.close()
    print(f"\n{request.node.name}: {result}")
    assert result.sound, result
    assert dict(result.errors) == {}
    assert result.recovery is not None
