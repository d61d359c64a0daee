"""PyMySQL without redundant work: a ROLLBACK with nothing to roll back, a TLS context per connection."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from pymysql.connections import Connection
from pymysql.err import MySQLError
from sqlalchemy import Engine, event

from dbconfig.engine.dialects.mysql.driver import MySQLDriver
from dbconfig.engine.dialects.mysql.tls import NO_AUTHORITIES
from dbconfig.engine.pool.driver import Parameters

# PyMySQL's TLS defaults, without reading the CA certificates that these defaults do not use.
_UNVERIFIED: Final = {"capath": NO_AUTHORITIES, "check_hostname": False, "verify_mode": False}
_HANDSHAKE: Final = "dbconfig.read_timeout"  # in record.info: the driver's own limit, while ours is set
_force_close: Any = getattr(Connection, "_force_close")  # noqa: B009  # private, not declared
_build_context: Any = getattr(Connection, "_create_ssl_ctx")  # noqa: B009  # private, not declared


class Tracking(Connection):
    """Knows whether anything was sent since the last COMMIT or ROLLBACK, and rolls back only then.

    SQLAlchemy sends ROLLBACK at each return to the pool, also after a COMMIT, and a Session sends another one when it
    ends. What the server said last (`server_status`) does not tell whether it is needed: the answer to a SELECT, which
    begins a transaction and takes its snapshot, does not show it. Every statement passes here, including raw ones of
    the driver.
    """

    clean: bool = False
    under_way: Any = None  # the statement
    interrupted: Callable[[Any], None] = staticmethod(lambda statement: None)

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self.clean, self.under_way = False, sql
        try:
            answer = self._whole(super().query, sql, unbuffered)
            self.under_way = None
            return answer
        except MySQLError:
            raise
        except BaseException:
            self.interrupted(sql)
            raise

    def begin(self) -> None:
        self.clean = False
        super().begin()

    def commit(self) -> None:
        self._whole(super().commit)
        self.clean = True

    def rollback(self) -> None:
        if self.clean and self.open:
            return  # a broken connection must raise, and not return to the pool
        self._whole(super().rollback)
        self.clean = True

    def _whole(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Close the connection if a call ends without the server's answer, which the next user might read otherwise."""
        try:
            return call(*arguments)
        except MySQLError:
            raise
        except BaseException:  # a time limit by signal, for instance, in raw use of the driver as well
            _force_close(self)
            raise


def attach(engine: Engine, *, share_tls_context: bool) -> None:
    """Make the connections of an engine roll back only if needed, and share one TLS context."""
    dialect: Any = engine.dialect
    connect, sharing = dialect.connect, _sharing_tls_context()

    def connect_sharing(*arguments: Any, **keywords: Any) -> Any:
        # A replacement of the driver's own class is called: a tracer's function, a given `module`.
        chosen = sharing if dialect.loaded_dbapi.connect is Connection else connect
        try:
            return chosen(*arguments, **keywords)
        finally:
            keywords.clear()  # no traceback frame may hold the password

    if share_tls_context:
        dialect.connect = connect_sharing  # on the dialect object of this engine alone

    @event.listens_for(engine, "connect")
    def track(connection: Any, record: Any) -> None:
        own = getattr(connection, "__wrapped__", connection)  # of a tracer's proxy
        if isinstance(own, Connection):
            kind: Any = type(own)
            own.__class__ = _tracking(kind)


@cache
def _tracking(kind: Any) -> Any:
    return kind if issubclass(kind, Tracking) else type("TrackingConnection", (Tracking, kind), {})


def _sharing_tls_context() -> type[Connection]:
    """Build the TLS context once: PyMySQL reads the CA bundle for every connection, which takes 25 of its 26 ms."""
    contexts: dict[str, Any] = {}

    class SharedContextConnection(Connection):
        def _create_ssl_ctx(self, sslp: Any) -> Any:
            if not isinstance(sslp, dict):
                return _build_context(self, sslp)
            wanted = repr(sorted(sslp.items()))
            if wanted not in contexts:
                contexts[wanted] = _build_context(self, sslp or _UNVERIFIED)
            return contexts[wanted]

    return SharedContextConnection


class PyMySQL(MySQLDriver):
    """The driver PyMySQL."""

    package = "pymysql"
    wire = frozenset({"pymysql.connections"})

    def plug(self, connection: Any) -> Any:
        return connection._sock

    def limit_connect(self, dialect: Any, record: Any, parameters: Parameters, seconds: float) -> None:
        # Its connect_timeout covers only TCP's connect; a server that accepts and stays silent would block it
        # indefinitely.
        parameters.at_most("connect_timeout", seconds)
        record.info[_HANDSHAKE] = parameters.written("read_timeout")
        parameters.at_most("read_timeout", seconds)

    def connected(self, connection: Any, record: Any) -> None:
        if _HANDSHAKE in record.info:
            connection._read_timeout = record.info.pop(_HANDSHAKE)


DRIVER = PyMySQL()
