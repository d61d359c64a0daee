"""Warnings about valid configurations, logged at load and printed by `validate`; failures with `--strict`."""

from __future__ import annotations

from dbconfig.errors.catalogue.entry import Entry

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from typing import Final

ADVICE: Final[dict[str, Entry]] = {
    "echo-in-production": Entry(
        (
            "Every statement of a protected database is logged, with its parameters unless `hide_parameters` is "
            "set. Logs grow, and contain personal data."
        ),
        "# production.yaml\necho: true",
        "Remove `echo`; set `DBCONFIG_ECHO=true` in the environment while you debug.",
    ),
    "file-writable": Entry(
        (
            "Other users of the machine can write a configuration file, or the file of a secret or a "
            "certificate, or replace it in its folder. They then decide which server gets the password."
        ),
        "chmod 666 config/production.yaml",
        (
            "Remove their write permission with chmod o-w,g-w from the file and its folder. Make the user of "
            "the application, or root, the owner."
        ),
    ),
    "guessable-password": Entry(
        (
            "The password is a well-known default, or on every list of common passwords, and the database is in "
            "production or on another host."
        ),
        "password: postgres",
        "Set another password on the server, and pass it as `${VAR}` or `{file: PATH}`.",
    ),
    "memory-in-production": Entry(
        (
            "A protected profile keeps its data in memory: the data is lost when the process ends, and other "
            "processes do not see it."
        ),
        "# production.yaml\nurl: 'sqlite:///:memory:'",
        "Name a file or a server.",
    ),
    "comment-after-secret": Entry(
        (
            "A password without quotes is followed by a space, `#` and more text. YAML takes that for a comment: it "
            "is not part of the password."
        ),
        "password: abc #1",
        "Put the password in quotes: `'abc #1'`. If it is a comment, write a space after the `#`.",
    ),
    "option-hole": Entry(
        (
            "A driver option that opens a security hole: `local_infile` lets the server read files of this "
            "machine, `init_command` runs unchecked SQL, `read_default_file` takes host, user, and password "
            "from another file."
        ),
        "connect_args: {local_infile: true}",
        "Remove it; set session variables with `variables:`.",
    ),
    "secret-file-readable": Entry(
        "Other users of the machine can read the file that holds a secret.",
        "chmod 644 secrets/password",
        ("Run chmod 600, and make the user of the application its owner. Files under /run/secrets are not checked."),
    ),
    "secret-in-file": Entry(
        (
            "A password is written in plain text in a configuration file that others can read. It ends up in "
            "every copy and in the history of the repository."
        ),
        "url: postgresql://app:hunter2@db.internal/shop",
        "Write `${VAR}`, or `password: {file: PATH}`.",
    ),
    "superuser": Entry(
        (
            "The application logs in to a production database as the administrator of the server. An attacker "
            "who takes over the application then controls every database."
        ),
        "url: postgresql://postgres@db.internal/shop",
        "Create a separate user for the application, with privileges on its own database only.",
    ),
    "tls-not-verified": Entry(
        (
            "A production database on another host is reached without TLS, or without verification of the "
            "server's certificate: anyone on the network path can read and change everything. PostgreSQL's default, "
            "`prefer`, verifies nothing, and neither does `require`."
        ),
        "url: postgresql://app@db.internal/shop?sslmode=require",
        (
            "Write `sslmode: verify-full`, and in `sslrootcert` either `system` or the file of your provider's "
            "authority."
        ),
    ),
    "unlimited-pool": Entry(
        (
            "`max_overflow: -1` or `pool_size: 0` removes the limit of the pool: a burst of requests takes "
            "every connection of the server."
        ),
        "max_overflow: -1",
        "Set a limit; `dbconfig check` says what fits the server.",
    ),
}
