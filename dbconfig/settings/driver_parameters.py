"""Arguments that connect() of each driver accepts, for validation without an installed driver."""

from __future__ import annotations

from typing import Final

# https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS, with those of older versions
_LIBPQ: Final = frozenset(
    {"application_name", "authtype", "channel_binding", "client_encoding", "connect_timeout", "dbname", "tty"}
    | {"fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "krbsrvname"}
    | {"keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "passfile"}
    | {"max_protocol_version", "min_protocol_version", "oauth_client_id", "oauth_client_secret", "oauth_issuer"}
    | {"oauth_scope", "options", "password", "port", "replication", "require_auth", "requirepeer", "requiressl"}
    | {"scram_client_key", "scram_server_key", "service", "servicefile", "ssl_max_protocol_version"}
    | {"ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir", "sslkey"}
    | {"sslkeylogfile", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs"}
    | {"tcp_user_timeout", "user"}
)
# Parameters of libpq that asyncpg does not know, or only in another form: they are translated.
ASYNCPG_TRANSLATED: Final = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "options", "application_name", "connect_timeout"}
    | {"target_session_attrs", "ssl", "service"}
)
ASYNCPG: Final = frozenset(
    {"dsn", "host", "port", "user", "password", "passfile", "database", "timeout", "statement_cache_size", "loop"}
    | {"max_cached_statement_lifetime", "max_cacheable_statement_size", "command_timeout", "direct_tls"}
    | {"connection_class", "record_class", "server_settings", "krbsrvname", "gsslib"}
    | ASYNCPG_TRANSLATED
    | {"prepared_statement_cache_size", "prepared_statement_name_func", "async_creator_fn"}
)
_OF_MYSQL: Final = frozenset(
    {"user", "password", "host", "db", "unix_socket", "port", "charset", "sql_mode", "read_default_file", "conv"}
    | {"use_unicode", "client_flag", "init_command", "connect_timeout", "read_default_group", "autocommit", "ssl"}
    | {"local_infile", "program_name", "server_public_key"}
)
_TLS: Final = frozenset(
    {"ssl_ca", "ssl_cert", "ssl_disabled", "ssl_key", "ssl_key_password", "ssl_verify_cert", "ssl_verify_identity"}
)
_PYMYSQL: Final = frozenset(
    {"database", "passwd", "collation", "cursorclass", "max_allowed_packet", "defer_connect", "auth_plugin_map"}
    | {"read_timeout", "write_timeout", "bind_address", "binary_prefix", "compress", "named_pipe"}
)
_MYSQLCLIENT: Final = frozenset(
    {"database", "passwd", "collation", "cursorclass", "compress", "named_pipe", "binary_prefix", "auth_plugin"}
    | {"multi_statements", "ssl_mode", "server_public_key_path", "read_timeout", "write_timeout"}
)
_ASYNCMY: Final = frozenset(
    {"database", "password_creator", "sock", "cursor_cls", "max_allowed_packet", "auth_plugin_map", "read_timeout"}
    | {"binary_prefix", "echo", "query_callback", "stmt_cache_size", "ssl_key_password"}
)
_AIOMYSQL: Final = frozenset({"cursorclass", "echo", "loop", "auth_plugin"})
# Without `isolation_level` and `autocommit`, which control the driver's own BEGIN: dbconfig begins transactions itself,
# and with the second one they would never be committed.
OWN_BEGIN: Final = ("isolation_level", "autocommit")
SQLITE: Final = frozenset({"timeout", "detect_types", "check_same_thread", "factory", "cached_statements", "uri"})
PSYCOPG2: Final = _LIBPQ | {"dsn", "connection_factory", "cursor_factory"}
PSYCOPG: Final = _LIBPQ | {"autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"}
PYMYSQL: Final = _OF_MYSQL | _PYMYSQL | _TLS
MYSQLCLIENT: Final = _OF_MYSQL | _MYSQLCLIENT
ASYNCMY: Final = _OF_MYSQL | _ASYNCMY | _TLS
AIOMYSQL: Final = _OF_MYSQL | _AIOMYSQL | _TLS
SQLITE_OR_REFUSED: Final = SQLITE.union(OWN_BEGIN)
# Of a URL, whose values are texts.
LIBPQ_URL: Final = _LIBPQ - {"requiressl"}  # `sslmode` says it
ASYNCPG_URL: Final = ASYNCPG_TRANSLATED | {"host", "port", "prepared_statement_cache_size"}
# Parameters that SQLAlchemy converts from the text of a URL. Others reach the driver as text, where "false" is true:
# `?ssl_disabled=false` would switch TLS off. Several hosts and ports are written as in PostgreSQL's URLs.
MYSQL_URL: Final = frozenset(
    {"host", "port", "charset", "compress", "connect_timeout", "read_timeout", "write_timeout", "client_flag"}
    | {"local_infile", "use_unicode", "unix_socket", "read_default_file", "read_default_group"}
    | {"ssl_ca", "ssl_key", "ssl_cert", "ssl_capath", "ssl_cipher", "ssl_check_hostname"}
)
SQLITE_URL: Final = SQLITE - {"factory"}
SQLITE_FILE_URL: Final = frozenset({"mode", "cache", "vfs", "nolock", "immutable", "psow", "modeof", "uri"})
TIMEOUTS: Final = ("read_timeout", "write_timeout")  # which drivers of asyncio have not
NO_TIMEOUT: Final = "limit the time with `statement_timeout`, or with asyncio.timeout() around the call"


def own_begin(name: str) -> tuple[str, str]:
    """Return the problem of an argument about sqlite3's own BEGIN, and the remedy."""
    message = f"{name!r} of sqlite3 has no effect here: dbconfig begins and commits transactions itself"
    return message, "`isolation_level: AUTOCOMMIT` commits each statement"
