"""The private servers and the proxy do what the other tests take for granted."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from inspect import cleandoc
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psycopg2
import pymysql
import pytest
from sqlalchemy.engine import make_url

import tests.support.mariadb
import tests.support.postgresql
from tests.support import ports, processes, servers
from tests.support.interpreter import run_python
from tests.support.ports import free_port
from tests.support.processes import descendants, wait_until
from tests.support.proxy import Proxy
from tests.support.servers import MariaDBServer, PostgreSQLServer, Server

DriverError = (psycopg2.Error, pymysql.err.Error)


def connect(server: Server, *, name: str = "", url: str | None = None, timeout: int = 10) -> Any:
    """Open a connection as a client would: over TCP and with a password."""
    target = make_url(url or server.url())
    common: dict[str, Any] = {"host": target.host, "port": target.port, "user": target.username}
    common |= {"password": target.password, "connect_timeout": timeout}
    if isinstance(server, PostgreSQLServer):
        return psycopg2.connect(**common, dbname=target.database, application_name=name)
    attributes: dict[str, Any] = {"program_name": name} if name else {}
    # The socket is ours: this driver leaves its own unclosed when it cannot connect.
    connection = pymysql.Connection(**common, database=target.database, defer_connect=True, **attributes)
    plug = socket.create_connection((target.host, target.port))
    try:
        plug.settimeout(timeout)
        connection.connect(plug)
    except BaseException:
        plug.close()
        raise
    return connection


def ask(connection: Any, statement: str = "SELECT 1") -> Any:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return cursor.fetchall()[0][0] if cursor.description else None


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """An echo server's address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while chunk := client.recv(65536):
                    client.sendall(chunk)
            except OSError:
                pass  # the proxy has reset it

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=[client])
            thread.start()
            threads.append(thread)

    threads: list[threading.Thread] = [threading.Thread(target=accept)]
    threads[0].start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in threads:
        thread.join()


@pytest.fixture
def network(echo: tuple[str, int]) -> Iterator[Proxy]:
    """A proxy before an echo server."""
    with Proxy(*echo) as proxy:
        yield proxy


@pytest.fixture
def client(network: Proxy) -> Iterator[socket.socket]:
    """A connection through `network` that has already carried something."""
    with call(network) as plug:
        assert echoed(plug, b"hello")
        yield plug


def call(network: Proxy) -> socket.socket:
    plug = socket.create_connection((network.host, network.port), timeout=10)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plug


def echoed(plug: socket.socket, message: bytes) -> bool:
    plug.sendall(message)
    received = b""
    while len(received) < len(message) and (chunk := plug.recv(65536)):
        received += chunk
    return received == message


def silent(plug: socket.socket) -> bool:
    """Is there neither an answer nor an end?"""
    plug.settimeout(0.2)
    try:
        plug.sendall(b"is anybody there?")
        plug.recv(1)
    except TimeoutError:
        return True
    finally:
        plug.settimeout(10)
    return False


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# Servers.


def test_a_client_comes_in_with_the_url(server: Server) -> None:
    with closing(connect(server)) as connection:
        assert ask(connection) == 1


def test_a_wrong_password_is_refused(server: Server) -> None:
    with pytest.raises(DriverError):
        connect(server, url=server.url(password="wrong"))


def test_the_administrator_does_not_come_in_over_tcp(server: Server) -> None:
    with pytest.raises(DriverError):
        connect(server, url=server.url(user=server.admin, password=""))


def test_a_url_escapes_what_is_special(server: Server) -> None:
    url = make_url(server.url(user="a@b", password="p:/?#%", database="x/y"))
    # SQLAlchemy 2.0 leaves the name of the database as it stands in the URL.
    assert (url.username, url.password, unquote(url.database or "")) == ("a@b", "p:/?#%", "x/y")
    assert url.port == server.port


def test_the_client_may_use_what_the_administrator_made(server: Server) -> None:
    server.sql("CREATE TABLE given (id integer)")
    with closing(connect(server)) as connection:
        assert ask(connection, "SELECT count(*) FROM given") == 0


def test_a_test_has_a_database_of_its_own(server: Server) -> None:
    assert server.sql("SELECT count(*) FROM information_schema.tables WHERE table_name = 'mine'") == [(0,)]
    with closing(connect(server)) as connection:
        ask(connection, "CREATE TABLE mine (id integer)")
    assert server.database.startswith("test_")


@pytest.mark.parametrize(
    "writes",
    [
        ["SELECT 1"],
        ["CREATE TABLE mine (id integer)"],
        ["CREATE TABLE mine (id integer)", "DROP TABLE mine"],
        ["CREATE TEMP TABLE mine (id integer)"],
        ["BEGIN", "CREATE TABLE mine (id integer)"],
        ["SELECT lo_create(7)"],
        ['ALTER DATABASE "{database}" SET work_mem = 64'],
    ],
    ids=" ".join,
)
def test_a_database_is_used_again_only_if_nobody_has_written(
    postgresql_server: PostgreSQLServer, writes: list[str]
) -> None:
    with postgresql_server.fresh_database() as server:
        name = server.database
        connection = connect(server)
        connection.autocommit = True
        for each in writes:
            ask(connection, each.format(database=name))
    with postgresql_server.fresh_database() as server:
        assert (server.database == name) is (writes == ["SELECT 1"])
        assert server.connections() == []  # of the one before
        with postgresql_server.fresh_database() as inner:  # of a test that asks for two
            other = inner.database
        with postgresql_server.fresh_database() as inner:
            assert inner.database == other
            inner.sql("CREATE TABLE mine (id integer)")
        with postgresql_server.fresh_database() as inner:
            assert inner.database != other
    connection.close()


def test_databases_do_not_see_each_other(server: Server) -> None:
    other = server.create_database()
    server.sql("CREATE TABLE here (id integer)")
    with pytest.raises(DriverError):
        server.sql("SELECT * FROM here", database=other)
    server.drop_database(other)


def test_odd_names_and_passwords_work(server: Server) -> None:
    server.create_user("o'x_\\%", "p'\\\"%@:/")
    with closing(connect(server, url=server.url(user="o'x_\\%", password="p'\\\"%@:/"))) as connection:
        ask(connection, "CREATE TABLE theirs (id integer)")


def test_a_changed_password_counts_from_the_next_connection(server: Server) -> None:
    with closing(connect(server)) as connection:
        server.set_password(server.user, "rotated")
        assert ask(connection) == 1
        with pytest.raises(DriverError):
            connect(server)
        connect(server, url=server.url(password="rotated")).close()


def test_the_administrator_keeps_a_connection_and_a_forked_child_makes_one_of_its_own(server: Server) -> None:
    question = "SELECT pg_backend_pid()" if server.kind == "postgresql" else "SELECT connection_id()"

    def own() -> int:
        return int(server._administrate(question)[0][0])

    kept = own()
    assert own() == kept
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, str(own()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(told, 20)) != kept
    os.close(told)
    os.close(tell)
    assert own() == kept
    server.without_administrator()
    assert own() != kept


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_a_restart_keeps_the_port_and_what_was_committed(server: Server, mode: Any) -> None:
    port, pid = server.port, server.pid
    server.sql("CREATE TABLE kept (id integer)")
    server.sql("INSERT INTO kept VALUES (7)")
    if mode == "kill":
        server.kill()
        server.start()
    else:
        server.restart(mode)
    assert server.port == port
    assert server.pid != pid
    with closing(connect(server)) as connection:
        assert ask(connection, "SELECT id FROM kept") == 7


def test_a_stopped_server_refuses_and_leaves_no_process(server: Server) -> None:
    pids = [server.pid, *descendants(server.pid)]
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port)).close()
    wait_until(lambda: all(map(gone, pids)), "the end of the server's processes")


def test_a_killed_server_ends_its_clients(server: Server) -> None:
    with closing(connect(server)) as connection:
        server.kill()
        with pytest.raises(DriverError):
            ask(connection)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc: the states of another's threads")
def test_a_server_that_is_told_to_stand_still_has_done_so_when_the_test_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal returns before all threads of the process have stopped."""

    def send_late(pid: int, number: signal.Signals) -> None:
        timer = threading.Timer(0.3, os.kill, (pid, number))
        timers.append(timer)
        timer.start()

    timers: list[threading.Timer] = []
    with closing(connect(server)) as connection:
        ask(connection)
        with monkeypatch.context() as patch:
            patch.setattr(processes, "_send", send_late)
            server.pause()
        assert Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        for timer in timers:
            timer.join()
        server.resume()


def test_a_paused_server_answers_only_after_it_resumes(server: Server) -> None:
    with closing(connect(server)) as connection:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(ask(connection)))
        server.pause()
        thread.start()
        # The kernel still accepts, as it does for a machine that hangs.
        socket.create_connection((server.host, server.port)).close()
        thread.join(0.3)
        assert answers == []
        server.resume()
        thread.join(60)
        assert answers == [1]


def test_a_paused_server_can_be_stopped(server: Server) -> None:
    server.pause()
    server.restart()
    assert server.sql("SELECT 1") == [(1,)]


def test_clients_are_listed_by_name_and_by_user(server: Server) -> None:
    server.create_user("guest", "secret")
    guest = server.url(user="guest", password="secret")
    with (
        closing(connect(server, name="one")),
        closing(connect(server, name="two")),
        closing(connect(server, url=guest)),
    ):
        assert len(server.connections()) == 3
        assert len(server.connections(application_name="one")) == 1
        assert len(server.connections(user="guest")) == 1
        assert server.connections(application_name="one", user="guest") == []


def test_one_client_is_thrown_out_and_the_other_stays(server: Server) -> None:
    with closing(connect(server, name="victim")) as victim, closing(connect(server)) as other:
        assert server.terminate(server.connections(application_name="victim")[0]) == 1
        assert ask(other) == 1
        with pytest.raises(DriverError):
            ask(victim)


def test_all_clients_are_thrown_out(server: Server) -> None:
    with closing(connect(server)) as one, closing(connect(server)) as two:
        assert server.terminate() == 2
        assert server.connections() == []
        for connection in (one, two):
            with pytest.raises(DriverError):
                ask(connection)
    assert server.terminate() == 0


def test_a_server_that_ended_by_itself_is_started_again(server: Server) -> None:
    process = server.pid
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not server.running, "the end of the server")
    server.heal()
    assert server.sql("SELECT 1") == [(1,)]


def test_a_killed_test_run_leaves_neither_server_nor_files(server: Server) -> None:
    program = f"""if True:
        import time
        from tests.support import ports, processes, servers
        server = servers.{server.kind}()
        print(server.pid, server.folder, flush=True)
        time.sleep(600)"""
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        pid, folder = run.stdout.readline().split()
        run.kill()
    wait_until(lambda: not Path(folder).exists(), "the removal of the files")
    wait_until(lambda: gone(int(pid)), "the end of the server")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tests.support.mariadb, tests.support.postgresql):
        monkeypatch.setattr(module, "find_program", lambda *names, folders=(): None)
    with pytest.raises(servers.ServerMissing, match="apt-get install postgresql"):
        servers.postgresql()
    with pytest.raises(servers.ServerMissing, match="apt-get install mariadb-server"):
        servers.mariadb()


def test_tls_is_offered_with_a_certificate_to_verify(postgresql_server: PostgreSQLServer) -> None:
    with servers.postgresql(tls=True) as secure:
        verified = f"?hostaddr={secure.host}&sslmode=verify-full&sslrootcert={secure.certificate}"
        with closing(psycopg2.connect(secure.url(host="localhost") + verified)) as connection:
            assert ask(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True


def test_a_mariadb_keeps_its_temporary_files_to_itself(mariadb: MariaDBServer) -> None:
    ((folder,),) = mariadb.sql("SELECT @@tmpdir")
    assert Path(str(folder)) == mariadb.folder / "tmp"
    # A sort of this size is spilled to a file there.
    ((count,),) = mariadb.sql(
        "SELECT COUNT(*) FROM (SELECT DISTINCT UUID(), REPEAT('x', 9000) FROM seq_1_to_3000) AS t"
    )
    assert count == 3000


def test_mariadb_offers_tls_too(mariadb_server: MariaDBServer) -> None:
    with servers.mariadb(tls=True) as secure:
        account: dict[str, Any] = {"user": secure.user, "password": secure.password, "port": secure.port}
        verified: dict[str, Any] = {"ssl_ca": str(secure.certificate), "ssl_verify_identity": True}
        with closing(pymysql.connect(host="localhost", **account, **verified)) as connection:
            cipher = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
            assert ask(connection, cipher)


def follow(server: Server) -> Any:
    if isinstance(server, PostgreSQLServer):
        return server.standby()
    assert isinstance(server, MariaDBServer)
    return server.replica()


def test_a_replica_reads_what_its_primary_writes_and_writes_nothing(server: Server) -> None:
    server.sql("CREATE TABLE followed (id integer)")
    with follow(server) as replica:
        server.sql("INSERT INTO followed VALUES (1)")
        replica.catch_up()
        with closing(connect(replica)) as connection:
            assert ask(connection, "SELECT count(*) FROM followed") == 1
            with pytest.raises(DriverError, match="read-only"):
                ask(connection, "INSERT INTO followed VALUES (2)")


def test_a_replica_outlives_a_restart_of_its_primary(server: Server) -> None:
    server.sql("CREATE TABLE followed (id integer)")
    with follow(server) as replica:
        server.restart()
        server.sql("INSERT INTO followed VALUES (1)")
        replica.catch_up()
        assert replica.sql("SELECT count(*) FROM followed") == [(1,)]


def test_a_standby_that_was_late_reads_what_it_has_missed(postgresql: PostgreSQLServer) -> None:
    """Each backup ends a file of the log, and each new database has a checkpoint, after which such a file may go."""
    with postgresql.standby() as standby:
        standby.catch_up()
        standby.pause()
        for number in range(4):
            postgresql.sql(f"CREATE TABLE missed_{number} (a integer)")
            postgresql.sql("SELECT pg_switch_wal()")
            postgresql.sql("CHECKPOINT")
        standby.resume()
        standby.catch_up()
        standby.database = postgresql.database
        assert standby.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'missed%'") == [(4,)]


def test_a_replica_can_lag(postgresql: PostgreSQLServer) -> None:
    postgresql.sql("CREATE TABLE followed (id integer)")
    with postgresql.standby(settings={"recovery_min_apply_delay": "1h"}) as standby:
        postgresql.sql("INSERT INTO followed VALUES (1)")
        assert standby.sql("SELECT count(*) FROM followed") == [(0,)]


def test_a_promoted_standby_writes(postgresql: PostgreSQLServer) -> None:
    with postgresql.standby() as standby:
        standby.promote()
        with closing(connect(standby)) as connection:
            ask(connection, "CREATE TABLE after_the_failover (id integer)")


# The proxy.


def test_a_proxy_passes_everything_on_unchanged(network: Proxy) -> None:
    with call(network) as plug:
        message = os.urandom(3_000_000)
        sender = threading.Thread(target=plug.sendall, args=[message])
        sender.start()
        received = bytearray()
        while len(received) < len(message):
            received += plug.recv(65536)
        sender.join()
        assert received == message
        assert network.bytes_up == network.bytes_down == len(message)


def test_a_receiver_that_does_not_read_slows_its_sender_down(network: Proxy) -> None:
    with call(network) as plug:
        plug.settimeout(0.5)
        with pytest.raises(TimeoutError):
            plug.sendall(bytes(200_000_000))
        assert network.bytes_up < 100_000_000


def test_many_connections_at_once(network: Proxy) -> None:
    plugs = [call(network) for _ in range(64)]
    results: list[bool] = []

    def chat(plug: socket.socket) -> None:
        results.append(all(echoed(plug, os.urandom(2_000)) for _ in range(50)))

    threads = [threading.Thread(target=chat, args=[plug]) for plug in plugs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 64
    assert (network.connections, network.accepted) == (64, 64)
    for plug in plugs:
        plug.close()
    assert (network.connections, network.accepted) == (0, 64)


def test_round_trips_are_questions_with_an_answer(network: Proxy, client: socket.socket) -> None:
    network.reset_counters()
    for _ in range(5):
        assert echoed(client, b"question")
    assert network.round_trips() == 5
    assert network.bytes_up == network.bytes_down == 40
    network.reset_counters()
    assert (network.round_trips(), network.connections, network.accepted) == (0, 1, 0)


def test_a_delay_holds_back_each_direction(network: Proxy, client: socket.socket) -> None:
    network.delay(0.1)
    began = time.monotonic()
    assert echoed(client, b"slow")
    assert time.monotonic() - began >= 0.2
    network.pass_through()
    assert echoed(client, b"fast")


@pytest.mark.parametrize("how", ["still open", "shut", "closed", "reset"])
def test_what_is_held_arrives_in_its_order_at_the_release(network: Proxy, how: str) -> None:
    with call(network) as client:
        assert echoed(client, b"before")
        network.hold()
        assert network.kept == 0
        client.sendall(b"first, ")
        wait_until(lambda: network.kept == 7, "the first words")
        client.sendall(b"second")
        wait_until(lambda: network.kept == 13, "the others")
        with call(network) as other:
            assert echoed(other, b"new ones work")
        network.reset_counters()
        if how == "shut":
            client.shutdown(socket.SHUT_WR)
        elif how != "still open":
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            wait_until(lambda: network.connections == 0, "the end of the client")
        assert (network.kept, network.bytes_down) == (13, 0)
        network.release()
        wait_until(lambda: network.bytes_down == 13, "the echo")
        assert network.kept == 0
        if how in ("still open", "shut"):
            assert client.recv(100, socket.MSG_WAITALL if how == "shut" else 0) == b"first, second"
        if how == "still open":
            assert echoed(client, b"after")


def test_a_cut_ends_the_stream(network: Proxy, client: socket.socket) -> None:
    network.cut()
    assert client.recv(1) == b""
    assert network.connections == 0
    with call(network) as plug:
        assert echoed(plug, b"new ones work")


def test_a_reset_is_an_error(network: Proxy, client: socket.socket) -> None:
    network.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with call(network) as plug:
        assert echoed(plug, b"new ones work")


def test_swallowing_silences_old_and_new(network: Proxy, client: socket.socket) -> None:
    network.swallow()
    with call(network) as newcomer:
        assert silent(client)
        assert silent(newcomer)
    network.pass_through()
    assert silent(client), "bytes are missing from this stream: it must not go on"
    with call(network) as plug:
        assert echoed(plug, b"healed")


def test_a_connection_that_lost_nothing_is_healed(network: Proxy, client: socket.socket) -> None:
    network.swallow()
    network.pass_through()
    assert echoed(client, b"nothing happened")


def test_only_the_existing_connections_are_swallowed(network: Proxy, client: socket.socket) -> None:
    network.swallow_existing()
    assert silent(client)
    with call(network) as plug:
        assert echoed(plug, b"new ones work")


def test_only_newcomers_are_muted(network: Proxy, client: socket.socket) -> None:
    network.mute_accept()
    with call(network) as newcomer:
        assert silent(newcomer)
        assert echoed(client, b"existing ones work")


def test_a_refusing_proxy_does_not_listen(network: Proxy, client: socket.socket) -> None:
    network.refuse()
    with pytest.raises(ConnectionRefusedError):
        call(network)
    assert echoed(client, b"existing ones work")
    network.pass_through()
    with call(network) as plug:
        assert echoed(plug, b"healed")


def test_the_server_does_not_hear_of_a_swallowed_end(
    postgresql: PostgreSQLServer, proxy: Callable[[Server], Proxy]
) -> None:
    network = proxy(postgresql)
    connection = connect(postgresql, url=postgresql.url(host=network.host, port=network.port))
    network.swallow()
    connection.close()
    assert network.connections == 0
    assert len(postgresql.connections()) == 1


@pytest.mark.parametrize(("after_forwarding", "saved"), [(False, 0), (True, 1)])
def test_a_commit_or_its_answer_is_lost(
    server: Server, proxy: Callable[[Server], Proxy], after_forwarding: bool, saved: int
) -> None:
    server.sql("CREATE TABLE parcels (id integer)")
    network = proxy(server)
    with closing(connect(server, url=server.url(host=network.host, port=network.port))) as connection:
        ask(connection, "INSERT INTO parcels VALUES (1)")
        network.cut_when(b"COMMIT", after_forwarding=after_forwarding)
        with pytest.raises(DriverError):
            connection.commit()
    assert network.cuts == 1
    assert server.sql("SELECT count(*) FROM parcels") == [(saved,)]


def test_a_port_that_was_picked_is_picked_by_no_other_process(tmp_path: Path) -> None:
    def pick(*among: int) -> list[int]:
        program = f"""
            from tests.support import ports
            ports._PORTS = {among or "ports._PORTS"}
            for _ in range(20):
                print(ports.free_port())
                ports._taken.clear()
        """
        command = ["-c", cleandoc(program)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return [int(line) for line in run_python(command, folder=tmp_path, environ=environ).stdout.split()]

    ours, (free, *_) = free_port(), pick()
    assert pick(ours, free) == [free] * 20


def test_when_no_port_is_left_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_PORTS", [free_port()])
    with pytest.raises(RuntimeError, match=r"no port from \d+ to \d+ is free"):
        free_port()


def test_a_server_that_is_down_resets() -> None:
    # As early as in call(), or later: the reset races with the caller.
    with Proxy("127.0.0.1", free_port()) as nowhere, pytest.raises(ConnectionResetError), call(nowhere) as plug:
        plug.recv(1)


def test_nothing_is_left_after_close(echo: tuple[str, int]) -> None:
    before = open_files()
    with Proxy(*echo) as network:
        plugs = [call(network) for _ in range(8)]
        assert all(echoed(plug, b"hello") for plug in plugs)
        network.swallow_existing()
    for plug in plugs:
        assert plug.recv(1) == b""
        plug.close()
    assert not any(thread.name.startswith("proxy-") for thread in threading.enumerate())
    wait_until(lambda: open_files() == before, "the echo server's end of the connections")
    network.close()
    with pytest.raises(RuntimeError, match="closed"):
        network.cut()
