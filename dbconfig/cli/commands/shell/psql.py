"""PostgreSQL's psql."""

from __future__ import annotations

from typing import Any, Final

from dbconfig.cli.commands.shell.start import CannotPass, Start, written
from dbconfig.settings import hosts, tls
from dbconfig.settings.choices import LIBPQ_SSL_MODES
from dbconfig.settings.database import DatabaseSettings
from dbconfig.settings.known_drivers import PORTS

# libpq's parameters by https://www.postgresql.org/docs/current/libpq-envars.html; what the profile does not set comes
# from the caller's environment, as for the program.
_PARAMETERS: Final = {
    "hostaddr": "PGHOSTADDR",
    "passfile": "PGPASSFILE",
    "require_auth": "PGREQUIREAUTH",
    "channel_binding": "PGCHANNELBINDING",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcertmode": "PGSSLCERTMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslsni": "PGSSLSNI",
    "requirepeer": "PGREQUIREPEER",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
    "client_encoding": "PGCLIENTENCODING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
}


def start(settings: DatabaseSettings, environ: dict[str, str], path: str) -> Start:
    """Return how to start psql: the profile's settings are in the environment."""
    address = settings.address
    given: dict[str, Any] = {
        **{name: value for name, value in address.query.items() if value},
        **{name: value for name, value in settings.connect_args.items() if value is not None},
        **tls.parameters(settings),
    }
    if "ssl" in given and written(given["ssl"]) in LIBPQ_SSL_MODES:  # a driver's own name for sslmode
        given.setdefault("sslmode", given["ssl"])
    wanted = {variable: written(given[name]) for name, variable in _PARAMETERS.items() if name in given}
    wanted["PGCONNECT_TIMEOUT"] = str(max(1, round(settings.connect_timeout)))
    identity: dict[str, Any] = {
        "user": address.username,
        "dbname": address.database,
        "password": settings.read_password(),
    }
    if address.host or "host" in given:
        places = {name: (written(value),) for name, value in given.items() if name in ("host", "port")}
        servers = hosts.servers(address.host, address.port, places, PORTS["postgresql"])
        identity["host"] = ",".join(host for host, _ in servers)
        identity["port"] = ",".join(str(port) for _, port in servers)
        environ.pop("PGSERVICE", None)  # whose lines would override these variables
    elif address.port:
        identity["port"] = str(address.port)
    names = {"user": "PGUSER", "dbname": "PGDATABASE", "password": "PGPASSWORD", "host": "PGHOST", "port": "PGPORT"}
    wanted |= {names[key]: value for key, value in identity.items() if value}
    for variable, value in wanted.items():
        if "\0" in value:
            raise CannotPass(f"{variable} would contain a NUL character, which an environment variable cannot hold")
    if "service" not in given:
        return [], environ | wanted
    # The lines of a service override the environment, and are overridden by explicit parameters.
    words = {
        "service": written(given["service"]),
        **{key: value for key, value in identity.items() if key != "password"},
    }
    connection = " ".join(f"{key}='{_in_quotes(value)}'" for key, value in words.items() if value)
    return [f"--dbname={connection}"], environ | wanted


def _in_quotes(value: str) -> str:
    # https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
    return value.replace("\\", "\\\\").replace("'", "\\'")
