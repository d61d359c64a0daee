"""Mistakes in a configuration, found before anything connects."""

from __future__ import annotations

from dbconfig.errors.catalogue.entry import Entry

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from typing import Final

CONFIGURATION: Final[dict[str, Entry]] = {
    "alias-bomb": Entry(
        (
            "The aliases of a file expand to more values than any configuration has. A file of one kilobyte can "
            "expand to billions of values."
        ),
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, …]",
        "Write the values out, or share them with `extends:` and default.yaml.",
    ),
    "ambiguous-value": Entry(
        (
            "A bare value that YAML versions read differently: in YAML 1.1 `010` is eight, `1:30` is ninety, "
            "`no` is false, and `2024-01-01` is a date. Another tool would read the file differently."
        ),
        "pool_size: 010",
        "Write plain digits for a number, and quotes around text: `'no'`.",
    ),
    "async-driver": Entry(
        "The profile names an asynchronous driver, but the program asks for a synchronous engine.",
        "url: postgresql+asyncpg://app@db/shop",
        "Remove the `+driver`: the installed driver of each kind is used.",
    ),
    "bad-reference": Entry(
        (
            "A `${…}` that cannot be read, a `$` before a name, or a variable whose own value contains a `${…}` "
            "that was not expanded. References have the syntax of the shell: `${NAME}`, `${NAME:-default}`, "
            "`${NAME:?message}`."
        ),
        "password: $DB_PASSWORD",
        (
            "Write `${NAME}` for a variable, `$$` for a dollar sign. Set a variable to its whole value: only "
            "YAML and `.env` files expand references."
        ),
    ),
    "database-elsewhere": Entry(
        (
            "Another profile protects the database that this profile points at: an exported variable or a "
            "copied URL would lead a test run to production. Nothing was created or dropped."
        ),
        "# testing.yaml\nurl: ${DATABASE_URL}   # and DATABASE_URL is production's",
        "Give the profile its own database, or select the profile that the database belongs to.",
    ),
    "dotenv-syntax": Entry(
        "A line of the `.env` file is not NAME=value.",
        "DB_PASSWORD my secret",
        "Write NAME=value, with quotes around a value that contains spaces or a `#`.",
    ),
    "duplicate-key": Entry(
        "One key appears twice in one mapping. YAML readers silently take the last one.",
        "pool_size: 5\npool_size: 20",
        "Remove one of the two.",
    ),
    "empty-value": Entry(
        (
            "A key without a value, which is null. In a profile, null removes a value set by a lower layer; if "
            "there is none, the value was forgotten. Inside connect_args, dialect_options, and "
            "execution_options an explicit null is None; a name without a value was forgotten."
        ),
        "pool_size:",
        "Write a value, or remove the line.",
    ),
    "empty-variable": Entry(
        "An environment variable is set, but empty. Usually something else should have filled it.",
        "DB_PASSWORD= dbconfig check",
        "Set it, or write `${NAME:-}` to allow an empty value.",
    ),
    "extends-cycle": Entry(
        "Profiles extend each other in a circle.",
        "# staging.yaml\nextends: production\n# production.yaml\nextends: staging",
        "Remove `extends:` from one of them. default.yaml applies to every profile without `extends:`.",
    ),
    "file-unreadable": Entry(
        ("A file exists, but cannot be read: permission is denied, or it is a folder, a pipe, or a link to itself."),
        "chmod 000 config/production.yaml",
        "Give the user of the application read permission.",
    ),
    "given-twice": Entry(
        "Two keys set the same value, so that one of them would be ignored.",
        "url: postgresql://app@db/shop\nhost: other-db",
        "Remove one of the two. A key may add a part that the URL does not contain.",
    ),
    "invalid-url": Entry(
        (
            "A URL that is not a database URL, or in which a special character is ambiguous. A password with "
            "`@`, `:`, `/`, `?`, `#`, or `%` must be percent-encoded."
        ),
        "url: postgresql://app:p@ss@db/shop",
        "Percent-encode it (`p%40ss`), use the separate keys, or write `${VAR}`, which is encoded for you.",
    ),
    "invalid-value": Entry(
        "A value that the key does not accept.",
        "poolclass: QueePool",
        "Write one of the values that the message lists.",
    ),
    "missing-driver": Entry(
        "The driver of the database is not installed in this Python environment.",
        "url: postgresql+psycopg://app@db/shop   # and psycopg is not installed",
        "Install the package that the message names, or remove the `+driver` to use the installed one.",
    ),
    "missing-value": Entry(
        "A required value is missing: a profile without a database, an empty file, or an empty text.",
        "pool_size: 20   # and no url",
        "Set `url:`, or `drivername:` and the other parts.",
    ),
    "no-config": Entry(
        (
            "No configuration folder was found. The search covers the folders beside and above the running "
            "script, then the working directory and those above it, up to the top of the project."
        ),
        "cd / && dbconfig list",
        "Run `dbconfig init` to create one, or name another place with `--config PATH`.",
    ),
    "no-shard": Entry(
        "The database is divided into `shards`, and the session names none. No shard is the default.",
        'db.session("orders")   # without shard="eu"',
        'Name a shard: `db.session("orders", shard="eu")`, or `with db.on_shard("eu"):` around the work.',
    ),
    "not-applicable": Entry(
        (
            "A key that has no effect on this kind of database or pool. SQLAlchemy would raise a TypeError, or "
            "ignore it."
        ),
        "url: sqlite:///data/app.db\nidle_in_transaction_timeout: 5s",
        "Remove it here. In default.yaml it may stand for the profiles to which it applies.",
    ),
    "not-for-tests": Entry(
        (
            "Tests may not use this profile: it is protected, or another profile protects the database that it "
            "points at. Nothing was created, and no test ran on it."
        ),
        "pytest   # with ENVIRONMENT=production",
        "Run the tests with a separate profile, such as `testing`.",
    ),
    "out-of-range": Entry(
        "A number outside the allowed range. It is rejected, never replaced.",
        "pool_size: -3",
        "Write a number within the limits that the message names.",
    ),
    "profile-name": Entry(
        (
            "The name of a profile is empty or not a safe file name. Names consist of letters, digits, `_`, and "
            "`-`; `default` is reserved for what all profiles share."
        ),
        "ENVIRONMENT=../production dbconfig show",
        "Name one of the profiles that the message lists, or unset ENVIRONMENT for `development`.",
    ),
    "protected": Entry(
        (
            "A destructive command on a protected database. A profile named production is protected unless it "
            "says otherwise."
        ),
        "db.drop_tables()   # with ENVIRONMENT=production",
        "Use another profile, or write `protected: false` in a profile whose tables may be dropped.",
    ),
    "provider-failed": Entry(
        "A password provider raised an error, did not return in time, or did not return a password.",
        "password: {provider: rds-iam}   # whose token service is down",
        ("Read the cause, which is the provider's own error; `timeout` of `db.password_provider` limits the call."),
    ),
    "secret-unreadable": Entry(
        (
            "A secret cannot be read: the file does not exist or permission is denied, it has more than one "
            "line, or a variable is not set."
        ),
        "password: {file: /run/secrets/missing}",
        "Mount the secret, or correct its place. The file contains the password and nothing else.",
    ),
    "sync-driver": Entry(
        "The profile names a synchronous driver, but the program asks for an asynchronous engine.",
        "url: postgresql+psycopg2://app@db/shop   # and db.async_engine()",
        "Remove the `+driver`: the installed driver of each kind is used.",
    ),
    "test-database": Entry(
        "The database for tests, beside the profile's own one, cannot be created.",
        "pytest   # and the user may not create databases",
        "Allow the user to create databases, or create the one that the message names.",
    ),
    "too-large": Entry(
        "A file that is larger, or more deeply nested, than any configuration. Reading stopped.",
        "ls -l config/production.yaml   # 3 MB: a data file under the wrong name",
        "Check whether this is the right file.",
    ),
    "unknown-database": Entry(
        "The profile has no database with this name.",
        'db.session("analitics")',
        "Use one of the names that the message lists, or add it under `databases:`.",
    ),
    "unknown-dialect": Entry(
        "An unsupported database system or driver, for which no SQLAlchemy dialect is installed.",
        "url: mongodb://app@db/shop",
        "Use sqlite, postgresql, mysql, or mariadb, or install the package of the database's SQLAlchemy dialect.",
    ),
    "unknown-key": Entry(
        "A key that is not a setting. A misspelled setting would silently have no effect.",
        "max_overflw: 40",
        "Use the name that the message suggests; `dbconfig schema` lists them all.",
    ),
    "unknown-profile": Entry(
        "The configuration folder has no file for this profile.",
        "ENVIRONMENT=prod dbconfig show   # the file is production.yaml",
        "Use one of the profiles that the message lists, or create the file.",
    ),
    "unknown-provider": Entry(
        "No code has registered this password provider, and no installed package provides it.",
        'password: {provider: rds-iam}   # without db.password_provider("rds-iam", …)',
        "Register it before the first use, or install its package.",
    ),
    "unknown-shard": Entry(
        "The database has no shard with this name.",
        'db.session("orders", shard="ue")',
        "Use one of the names that the message lists, or add it under `shards:`.",
    ),
    "unknown-table": Entry(
        ("No imported model has a table with this name. A model exists only after its module has been imported."),
        "dbconfig create-tables shop.models:SQLModel.metadata ordes",
        "Use the name that the message suggests, or import the module of the model.",
    ),
    "unset-variable": Entry(
        (
            "A `${…}` names an environment variable that is not set. Only the variables of the selected profile "
            "are required."
        ),
        "url: ${DATABASE_URL}",
        (
            "Set it in the environment or in the `.env` beside the configuration folder, or write a default: "
            "`${NAME:-default}`."
        ),
    ),
    "wrong-type": Entry(
        "A value of the wrong type.",
        "pool_size: five",
        "Write a value of the type that the message names.",
    ),
    "yaml-syntax": Entry(
        "The file is not valid YAML.",
        "url:sqlite:///data/app.db   # no space after the colon",
        "Correct the marked place; put text with special characters in quotes.",
    ),
    "yaml-tag": Entry(
        "A YAML tag. A configuration is data and never names code or types.",
        "pool_size: !!python/name:os.system",
        "Write plain text, a number, a list, or a mapping.",
    ),
}
