"""What may be written: the settings of a database and of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import PrivateAttr, model_validator

from dbconfig import addresses, kinds, patience, values
from dbconfig.applicability import contradictions
from dbconfig.drivers import backend_of, choose
from dbconfig.errors import BUILT_IN, Location
from dbconfig.fields import ConnectionFields, setting
from dbconfig.findings import reject_all
from dbconfig.providers import Providers
from dbconfig.replicas import completed
from dbconfig.secrets import Secret
from dbconfig.urls import DatabaseURL

if TYPE_CHECKING:
    from sqlalchemy import URL

# Where each key was written, by its path: the place in force first, then those that it covers.
Origins = Mapping[tuple[str, ...], tuple[Location, ...]]


class DatabaseSettings(ConnectionFields):
    """The validated settings of one database.

    Every key that `sqlalchemy.create_engine` has keeps its name and its meaning. `repr`, dumps and pickles carry no
    secret.
    """

    pool_size: values.WholeNumber = setting(5, "pool", "Connections that are kept open; 0 is no limit", ge=0, le=10_000)
    max_overflow: values.WholeNumber = setting(
        10, "pool", "Connections beyond pool_size; -1 is no limit", ge=-1, le=10_000
    )
    pool_timeout: values.Seconds = setting(30.0, "pool", "How long a caller waits for a connection", ge=0, le=86_400)
    pool_recycle: values.Seconds = setting(
        1800.0, "pool", "Age at which a connection is replaced; -1 is never", ge=-1, le=31_536_000
    )
    pool_pre_ping: values.Check = setting(
        1.0,
        "pool",
        "Look at the socket each time, and ping what rested for longer than this; true pings each time, false never",
    )
    pool_min_idle: values.WholeNumber = setting(
        0, "pool", "Connections that are kept ready; they are opened before they are asked for", ge=0, le=10_000
    )
    pool_idle_timeout: values.SecondsOrOff = setting(
        600.0,
        "pool",
        "Rest after which a connection beyond pool_min_idle is closed; false is never",
        gt=0,
        le=31_536_000,
    )
    pool_keepalive: values.SecondsOrOff = setting(
        120.0,
        "pool",
        "Rest after which an idle connection is asked whether it lives; false is never",
        gt=0,
        le=31_536_000,
    )
    pool_max_waiting: values.WholeNumber | None = setting(
        None,
        "pool",
        "Longest line of callers that wait for a connection; who comes later is refused at once",
        ge=0,
        le=1_000_000,
    )
    pool_leak_warning: values.SecondsOrOff = setting(
        None,
        "pool",
        "Report who holds a connection for longer; 30 s in profiles named development and testing unless given",
        gt=0,
        le=31_536_000,
    )
    pool_use_lifo: values.Flag = setting(
        False, "pool", "Hand out the connection that came back last, so that the others can rest"
    )
    pool_reset_on_return: kinds.Reset = setting(
        "rollback",
        "engine",
        "What happens to an open transaction when a connection comes back: rollback, commit or none",
    )
    poolclass: kinds.PoolClass | None = setting(None, "pool", f"The pool: {', '.join(kinds.POOL_CLASSES)}")

    echo: kinds.Echo = setting(False, "engine", "Log every statement; `debug` logs the rows too")
    echo_pool: kinds.Echo = setting(False, "engine", "Log what the pool does; `debug` logs every checkout")
    hide_parameters: values.Flag = setting(False, "engine", "Keep the parameters of statements out of logs and errors")
    logging_name: values.Name | None = setting(
        None, "engine", "Last part of the logger's name, sqlalchemy.engine.Engine.NAME; the profile's name unless given"
    )
    pool_logging_name: values.Name | None = setting(
        None,
        "engine",
        "Last part of the logger's name, sqlalchemy.pool.impl.QueuePool.NAME; the profile's name unless given",
    )
    isolation_level: values.IsolationLevel | None = setting(
        None, "engine", "READ COMMITTED, REPEATABLE READ, SERIALIZABLE, READ UNCOMMITTED or AUTOCOMMIT"
    )
    execution_options: values.Options = setting(
        {}, "engine", "Execution options of every statement of the engine; null is None"
    )
    connect_args: values.Options = setting({}, "engine", "Arguments of the driver's connect(); null is None")
    dialect_options: values.Options = setting(
        {}, "engine", "Arguments of SQLAlchemy's dialect, such as use_native_hstore or executemany_mode; null is None"
    )
    query_cache_size: values.WholeNumber = setting(
        500, "engine", "Compiled statements that are kept; 0 keeps none", ge=0, le=1_000_000
    )
    insertmanyvalues_page_size: values.WholeNumber = setting(
        1000, "engine", "Rows of one INSERT with many values", ge=1, le=1_000_000
    )
    use_insertmanyvalues: values.Flag = setting(
        True, "engine", "Send the rows of an INSERT that returns values together"
    )
    enable_from_linting: values.Flag = setting(True, "engine", "Warn of a SELECT that joins tables without a condition")
    label_length: values.WholeNumber | None = setting(
        None, "engine", "Longest label of a column in generated SQL", ge=6, le=255
    )
    max_identifier_length: values.WholeNumber | None = setting(
        None, "engine", "Longest name that the database takes", ge=1, le=1024
    )
    paramstyle: kinds.ParamStyle | None = setting(
        None, "engine", "Style of the parameters in generated SQL, where the driver has several"
    )

    connect_timeout: values.Seconds = setting(
        5.0,
        "timeout",
        "How long opening a connection may take; `?connect_timeout=` of a URL means the same, in whole seconds",
        gt=0,
        le=patience.LONGEST,
    )
    statement_timeout: values.Seconds | None = setting(
        None, "timeout", "How long the server lets a statement run", gt=0, le=604_800
    )
    lock_timeout: values.Seconds | None = setting(
        None, "timeout", "How long a statement waits for a lock", gt=0, le=604_800
    )
    idle_in_transaction_timeout: values.Seconds | None = setting(
        None, "timeout", "How long the server lets a transaction rest between statements", gt=0, le=604_800
    )
    variables: values.Variables = setting(
        {}, "timeout", "Session variables (SET) or SQLite PRAGMAs, set on each new connection outside a transaction"
    )

    pgbouncer: values.Flag = setting(
        False,
        "timeout",
        "A PgBouncer in transaction mode stands before PostgreSQL: timeouts and variables are set in each transaction, "
        "nothing is prepared on the server",
    )

    replicas: tuple[ReplicaSettings, ...] = setting(
        (),
        "connection",
        "Servers that read_only sessions read from: a list of what differs from the primary; off is none",
    )
    read_your_writes: values.Flag = setting(
        True, "replica", "After a commit, read-only sessions of the same task or thread see it, on whatever server"
    )
    replica_max_lag: values.SecondsOrOff = setting(
        30.0, "replica", "Seconds behind after which a replica is left out; false never asks", gt=0, le=604_800
    )
    replica_fallback: values.Flag = setting(
        True, "replica", "Read from the primary when no replica can serve; false raises instead"
    )

    fast_begin: values.Flag = setting(
        False, "engine", "Send BEGIN with the first statement, one round trip less a transaction; psycopg2 only"
    )
    expire_on_commit: values.Flag = setting(True, "session", "Sessions forget loaded attributes at commit")
    autoflush: values.Flag = setting(True, "session", "Sessions write pending changes before a query")
    protected: values.Flag = setting(
        False,
        "session",
        "Refuse drop_tables and every other destructive command; true in a profile named production unless given",
    )

    _origins: Origins = PrivateAttr(default_factory=dict)
    _prefix: tuple[str, ...] = PrivateAttr(())
    _folder: Path | None = PrivateAttr(None)
    _providers: Providers | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        return completed(data, is_replica="weight" in cls.model_fields)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        findings = contradictions(self)
        if findings:
            raise reject_all(findings)
        return self

    def origin(self, key: str) -> Location:
        """Return where the value in force of a key was written: ``config/production.yaml:4:1``, or ``default``."""
        return next(iter(self.layers(key)), BUILT_IN)

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return every place where a key was written, the one in force first."""
        path = patience.path(key, self)
        found = self._origins.get((*self._prefix, *path), ())
        # Engine options are inherited from the profile's own database, the connection is not.
        return found or (() if path[0] in CONNECTION_KEYS else self._origins.get(path, ()))

    def settle(self, origins: Origins, prefix: tuple[str, ...], folder: Path | None) -> None:
        """Note where the values came from; called once, by the loader, before anybody else has the settings."""
        self._origins, self._prefix, self._folder = origins, prefix, folder
        for number, replica in enumerate(self.replicas):
            replica.settle(origins, (*prefix, "replicas", str(number)), folder)

    @property
    def address(self) -> DatabaseURL:
        """The connection's parts, of the URL and of the keys that complete it; the password is not read."""
        return addresses.compose(self)

    @property
    def backend(self) -> str:
        """The database system: sqlite, postgresql, mysql or mariadb."""
        return backend_of(self.address.drivername)

    @property
    def in_memory(self) -> bool:
        """Whether this is SQLite without a file."""
        return self.backend == "sqlite" and self.address.database in (None, ":memory:")

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, absolute where the project folder is known; None for others, and for a URI."""
        database = self.address.database
        if self.backend != "sqlite" or self.in_memory or database is None or database.startswith("file:"):
            return None
        return (self._folder or Path()) / database

    @property
    def folder(self) -> Path | None:
        """The project folder, which relative paths are relative to."""
        return self._folder

    def read_password(self) -> str | None:
        """Return the password as it is now; None if there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        password = self.address.password
        if password is None:
            return None
        if password.kind == "provider":
            return (self._providers or Providers()).ask(password, self)
        return password.read(self._folder)

    def means_the_same(self, other: DatabaseSettings) -> bool:
        """Return whether an engine of the other settings would be the same; where they were written does not count."""
        return self.__dict__ == other.__dict__ and self._folder == other._folder

    def prove_password(self) -> None:
        """Read the password once, to find out early that it is missing; of a provider only whether it is known.

        Raises:
            ConfigError: it cannot be read, or there is no such provider.
        """
        password = self.address.password
        if password is not None and password.kind == "provider":
            (self._providers or Providers()).find(password)  # asking it may go over the network: not before a connect
        elif password is not None:
            password.read(self._folder)

    def provided_by(self, providers: Providers) -> Self:
        """Return the same settings, with a registry's own password providers where they need one."""
        password = self.address.password
        if password is None or password.kind != "provider":
            return self
        bound = self.model_copy()
        bound._providers = providers
        return bound

    def driver(self, *, asynchronous: bool = False) -> str:
        """Return the drivername with the installed driver, such as postgresql+psycopg2 or postgresql+asyncpg.

        Raises:
            ConfigError: the driver is not installed, or is of the other kind.
        """
        key = "drivername" if self.drivername else "url"
        return choose(self.address.drivername, self.origin(key), key, asynchronous=asynchronous)

    def sqlalchemy_url(self) -> URL:
        """Return SQLAlchemy's URL, with the installed driver and with its secrets read now.

        Raises:
            ConfigError: a secret cannot be read, or the driver is not installed.
        """
        return self._url(self.driver(), secrets=True)

    def public_url(self, drivername: str | None = None) -> URL:
        """Return SQLAlchemy's URL without any secret, for an engine that is given its secrets at each connect.

        Args:
            drivername: as `driver` returns it; None is the synchronous one.
        """
        return self._url(drivername or self.driver(), secrets=False)

    def _url(self, drivername: str, *, secrets: bool) -> URL:
        # The one place of the file half that needs SQLAlchemy: the names of the methods promise its type.
        from sqlalchemy import URL

        parts, host, port = self.address, self.address.host, self.address.port
        query: dict[str, str | tuple[str, ...]] = {}
        for name, found in parts.query.items():
            texts = tuple(
                one.read() if isinstance(one, Secret) else one for one in found if secrets or isinstance(one, str)
            )
            if texts:
                query[name] = texts[0] if len(texts) == 1 else texts  # drivers take a list for a list only
        if host is not None and host.startswith("/"):  # the folder of a socket cannot stand before the path of a URL
            query |= {"host": host} if port is None else {"host": host, "port": str(port)}
            host = port = None
        password = self.read_password() if secrets else None
        database = str(self.path) if self.path is not None else parts.database
        return URL.create(drivername, parts.username, password, host, port, database, query)


class ReplicaSettings(DatabaseSettings):
    """The validated settings of one replica: all of its primary's, and what differs."""

    weight: values.WholeNumber = setting(
        1, "replica", "Share of the reads, in proportion to the other replicas; 0 takes none", ge=0, le=1000
    )

    def layers(self, key: str) -> tuple[Location, ...]:
        """Return where a key was written: in the replica's own lines, or for its primary."""
        path = patience.path(key, self)
        *primary, _, _ = self._prefix or ("", "")
        found = (self._origins.get((*at, *path)) for at in (self._prefix, tuple(primary), ()))
        return next(filter(None, found), ())


DatabaseSettings.model_rebuild()

CONNECTION_KEYS: Final = frozenset(
    name
    for name, field in DatabaseSettings.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["group"] == "connection"
)
