"""How a setting is declared, and those that say where the database is and how its network is trusted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dbconfig import kinds, values


def setting(default: Any, group: str, description: str, **constraints: Any) -> Any:
    """Return a field; `group` is what it is about: connection, tls, engine, pool, timeout, replica or session."""
    return Field(default, description=description, json_schema_extra={"group": group}, **constraints)


class ConnectionFields(BaseModel):
    """The address of a database, and TLS."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)

    url: values.URL | None = setting(
        None, "connection", "The whole address: scheme://user:password@host:port/database?query"
    )
    drivername: values.DriverName | None = setting(
        None, "connection", "The database system, with or without `+driver`: postgresql, mysql+pymysql, sqlite"
    )
    username: values.Name | None = setting(None, "connection", "The user that logs in")
    password: values.Password | None = setting(
        None,
        "connection",
        "The password: text, ${VAR}, {file: PATH}, {env: NAME} or {provider: NAME}; "
        "the mappings are asked for each new connection",
    )
    host: kinds.Hosts | None = setting(
        None,
        "connection",
        "A host name, an IP address, or the folder of PostgreSQL's socket; for PostgreSQL a list, [one, two:5433], "
        "of which the first that is the primary is taken",
    )
    port: values.WholeNumber | None = setting(None, "connection", "The TCP port", ge=1, le=65535)
    database: values.Name | None = setting(
        None,
        "connection",
        "The name of the database; for SQLite the file, relative to the project folder, or `:memory:`",
    )
    query: values.Query = setting({}, "connection", "Parameters that would stand behind the `?` of a URL")

    sslmode: kinds.SSLMode | None = setting(
        None,
        "tls",
        "TLS: disable, prefer, require, verify-ca or verify-full; only the last two find out who answers, "
        "`require` encrypts and verifies nothing",
    )
    sslrootcert: values.Name | None = setting(
        None, "tls", "The file of the authorities that verify-ca and verify-full trust; `system` is the machine's own"
    )
    sslcert: values.Name | None = setting(None, "tls", "The file of the client's certificate")
    sslkey: values.Name | None = setting(None, "tls", "The file of the client's key")
