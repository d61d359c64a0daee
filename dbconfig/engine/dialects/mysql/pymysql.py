"""PyMySQL without what carries nothing: a ROLLBACK with nothing to roll back, a TLS context per connection."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection
from sqlalchemy import Engine

_build_context: Any = getattr(Connection, "_create_ssl_ctx")  # noqa: B009  # private, not declared


class TrackedConnection(Connection):
    """Knows whether anything was sent since the last COMMIT or ROLLBACK, and rolls back only then.

    SQLAlchemy sends ROLLBACK at each return to the pool, also after a COMMIT, and a Session one more at its end. What
    the server said last (`server_status`) does not tell whether it is needed: the answer to a SELECT, which begins a
    transaction and takes its snapshot, does not say so. Here every statement passes, raw ones of the driver too.
    """

    clean = False

    def query(self, sql: Any, unbuffered: bool = False) -> Any:
        self.clean = False
        return super().query(sql, unbuffered)

    def begin(self) -> None:
        self.clean = False
        super().begin()

    def commit(self) -> None:
        super().commit()
        self.clean = True

    def rollback(self) -> None:
        if self.clean and self.open:
            return  # a broken connection is to say so, and not to go back to the pool
        super().rollback()
        self.clean = True


def attach(engine: Engine, *, share_tls_context: bool) -> None:
    """Let an engine connect with connections of ours."""
    connection_class = _sharing_tls_context() if share_tls_context else TrackedConnection
    dialect: Any = engine.dialect
    dialect.connect = connection_class  # on the dialect object of this engine alone


def _sharing_tls_context() -> type[TrackedConnection]:
    """Build the TLS context once: PyMySQL reads the CA bundle for every connection, 25 of the 26 ms that one takes."""
    contexts: dict[str, Any] = {}

    class SharedContextConnection(TrackedConnection):
        def _create_ssl_ctx(self, sslp: Any) -> Any:
            if not isinstance(sslp, dict):
                return _build_context(self, sslp)
            wanted = repr(sorted(sslp.items()))
            if wanted not in contexts:
                contexts[wanted] = _build_context(self, sslp)
            return contexts[wanted]

    return SharedContextConnection
