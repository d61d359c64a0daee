"""Warnings about valid configurations, logged at load and printed by `validate`; failures with `--strict`."""

from __future__ import annotations

from typing import Final

from dbconfig.errors.catalogue.entry import Entry

ADVICE: Final[dict[str, Entry]] = {
    "echo-in-production": Entry(
        "Every statement of a protected database is logged, its parameters too unless `hide_parameters` is set. "
        "Logs grow, and hold personal data.",
        "# production.yaml\necho: true",
        "Remove `echo`; for an hour of searching, `DBCONFIG_ECHO=true` in the environment does the same.",
    ),
    "file-writable": Entry(
        "A configuration file, or the file of a secret or a certificate, can be written by other users of the machine, "
        "or be replaced in a folder that they can write to. They decide then which server gets the password.",
        "chmod 666 config/production.yaml",
        "`chmod o-w,g-w` the file and its folder, and let them belong to the user of the application or to root.",
    ),
    "guessable-password": Entry(
        "The password is a default one or on every list of common passwords, and the database is in production "
        "or on another host.",
        "password: postgres",
        "Set another password on the server, and give it by `${VAR}` or `{file: PATH}`.",
    ),
    "memory-in-production": Entry(
        "A protected profile keeps its data in memory: they are gone when the process ends, and other processes "
        "do not see them.",
        "# production.yaml\nurl: 'sqlite:///:memory:'",
        "Name a file or a server.",
    ),
    "option-hole": Entry(
        "An option of the driver that opens a hole: `local_infile` lets the server read files of this machine, "
        "`init_command` runs SQL that nobody checks, `read_default_file` takes host, user and password from elsewhere.",
        "connect_args: {local_infile: true}",
        "Remove it; session variables are set by `variables:`.",
    ),
    "secret-file-readable": Entry(
        "The file that holds a secret can be read by other users of the machine.",
        "chmod 644 secrets/password",
        "chmod 600, and let it belong to the user of the application. Files under /run/secrets are not looked at.",
    ),
    "secret-in-file": Entry(
        "A password is written in plain text in a configuration file that others can read: it comes into every "
        "copy and into the history of the repository.",
        "url: postgresql://app:hunter2@db.internal/shop",
        "Write `${VAR}`, or `password: {file: PATH}`.",
    ),
    "superuser": Entry(
        "The application logs in to a production database as the administrator of the server. What it can be "
        "tricked into, it may do to all databases.",
        "url: postgresql://postgres@db.internal/shop",
        "Make a user of its own for the application, with rights on its own database.",
    ),
    "tls-not-verified": Entry(
        "A production database on another host, and TLS is switched off or the server's certificate is not "
        "verified: whoever stands between can read and change everything. "
        "PostgreSQL's default, `prefer`, and `require` verify nothing.",
        "url: postgresql://app@db.internal/shop?sslmode=require",
        "PostgreSQL: `sslmode: verify-full` and `sslrootcert` in `query`. MySQL and MariaDB: `ssl_ca` in `query`.",
    ),
    "unlimited-pool": Entry(
        "`max_overflow: -1` or `pool_size: 0` is no limit: a burst of requests takes all connections of the server.",
        "max_overflow: -1",
        "Write a limit; `dbconfig check` says what fits the server.",
    ),
}
