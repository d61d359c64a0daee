"""What can be wrong with a configuration; nothing is connected then."""

from __future__ import annotations

from typing import Final

from dbconfig.errors.catalogue.entry import Entry

CONFIGURATION: Final[dict[str, Entry]] = {
    "alias-bomb": Entry(
        "The aliases of a file expand to more values than any configuration has. A file of a kilobyte can stand "
        "for billions of values that way.",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, …]",
        "Write the values out, or share them by `extends:` and default.yaml.",
    ),
    "ambiguous-value": Entry(
        "A bare value that versions of YAML read differently: in YAML 1.1 `010` is eight, `1:30` is ninety, `no` "
        "is false and `2024-01-01` is a date. "
        "What another tool makes of the file would not be what is used here.",
        "pool_size: 010",
        "Write plain digits for a number, quotes around text: `'no'`.",
    ),
    "async-driver": Entry(
        "An asynchronous driver was named where a synchronous engine is wanted.",
        "url: postgresql+asyncpg://app@db/shop",
        "Use the asynchronous API (`db.async_session()`), or leave the `+driver` out of the URL: each kind of engine "
        "then uses an installed driver of its kind.",
    ),
    "bad-reference": Entry(
        "A `${…}` that cannot be read, or a `$` before a name. The references are those of the shell: `${NAME}`, "
        "`${NAME:-default}`, `${NAME:?message}`.",
        "password: $DB_PASSWORD",
        "Write `${NAME}` for a variable, `$$` for a dollar sign.",
    ),
    "database-elsewhere": Entry(
        "Another profile protects the database that this profile points at: an exported variable or a copied URL "
        "leads a test run to production. "
        "Nothing was created or dropped.",
        "# testing.yaml\nurl: ${DATABASE_URL}   # and DATABASE_URL is production's",
        "Give the profile a database of its own, or select the profile that the database belongs to.",
    ),
    "dotenv-syntax": Entry(
        "A line of the `.env` file is not NAME=value.",
        "DB_PASSWORD my secret",
        "Write NAME=value, and put a value with blanks or a `#` in quotes.",
    ),
    "duplicate-key": Entry(
        "One key twice in one mapping. YAML readers take the last one without a word.",
        "pool_size: 5\npool_size: 20",
        "Remove one of the two.",
    ),
    "empty-value": Entry(
        "A key without a value, which is null. In a profile it takes back what default.yaml says; where there is "
        "nothing to take back, the value was forgotten. Among the arguments of connect_args, dialect_options and "
        "execution_options a null that is written is None; a name with nothing behind it was forgotten.",
        "pool_size:",
        "Give it a value, or remove the line.",
    ),
    "empty-variable": Entry(
        "An environment variable is set, but empty. That is usually a variable that was meant to be filled by "
        "somebody else.",
        "DB_PASSWORD= dbconfig check",
        "Set it, or write `${NAME:-}` if empty is meant.",
    ),
    "extends-cycle": Entry(
        "Profiles extend each other in a circle.",
        "# staging.yaml\nextends: production\n# production.yaml\nextends: staging",
        "Let one of them extend nothing. default.yaml lies beneath every profile without `extends:`.",
    ),
    "file-unreadable": Entry(
        "A file exists, but cannot be read as a configuration: permission is denied, it is a folder, a pipe, or "
        "a link to itself.",
        "chmod 000 config/production.yaml",
        "Let the user of the application read it.",
    ),
    "given-twice": Entry(
        "Two keys say the same thing, so that one of them would be ignored.",
        "url: postgresql://app@db/shop\nhost: other-db",
        "Remove one of the two. A part that the URL leaves out may be given by its key.",
    ),
    "invalid-url": Entry(
        "A URL that is no database URL, or in which a special character could belong to two parts. "
        "A password with `@`, `:`, `/`, `?`, `#` or `%` must be percent-encoded.",
        "url: postgresql://app:p@ss@db/shop",
        "Percent-encode it (`p%40ss`), or give the parts as keys, or write `${VAR}`, which is encoded for you.",
    ),
    "invalid-value": Entry(
        "A value that is not one of those that the key takes.",
        "poolclass: QueePool",
        "Write one of the values that the message lists.",
    ),
    "missing-driver": Entry(
        "The driver of the database is not installed in this Python environment.",
        "url: postgresql+psycopg://app@db/shop   # and psycopg is not installed",
        "Install what the message names, or leave the `+driver` out to take the installed one.",
    ),
    "missing-value": Entry(
        "A value that is needed is not there: a profile without a database, an empty file, an empty text.",
        "pool_size: 20   # and no url",
        "Give `url:`, or `drivername:` and the other parts.",
    ),
    "no-config": Entry(
        "There is no configuration folder. It is looked for beside and above the script that runs, then in and "
        "above the working directory, up to the top of the project.",
        "cd / && dbconfig list",
        "`dbconfig init` makes one; `--config PATH` names another place.",
    ),
    "not-applicable": Entry(
        "A key that cannot act on this kind of database or pool. SQLAlchemy would raise a TypeError, or ignore it.",
        "url: sqlite:///data/app.db\nidle_in_transaction_timeout: 5s",
        "Remove it here; in default.yaml it may stand for the profiles to which it applies.",
    ),
    "not-for-tests": Entry(
        "A profile that tests may not use: it is protected, or another profile protects the database that it points "
        "at. Nothing was created, and no test was run on it.",
        "pytest   # with ENVIRONMENT=production",
        "Run the tests with a profile of their own, such as `testing`.",
    ),
    "out-of-range": Entry(
        "A number below or above what makes sense. It is refused, never replaced by another one.",
        "pool_size: -3",
        "Write a number within the limits that the message names.",
    ),
    "profile-name": Entry(
        "A profile's name that is no safe file name, or is empty. It has letters, digits, `_` and `-`; `default` "
        "is what all profiles share.",
        "ENVIRONMENT=../production dbconfig show",
        "Name one of the profiles that the message lists, or unset ENVIRONMENT for `development`.",
    ),
    "protected": Entry(
        "A destructive command on a protected database. A profile named production is protected unless it says "
        "otherwise.",
        "db.drop_tables()   # with ENVIRONMENT=production",
        "Take another profile. A profile that may lose its tables says `protected: false`.",
    ),
    "provider-failed": Entry(
        "A password provider raised an error, did not come back in time, or returned what is no password.",
        "password: {provider: rds-iam}   # whose token service is away",
        "Look at the cause, which is the error of the provider itself; `timeout` of `db.password_provider` bounds it.",
    ),
    "secret-unreadable": Entry(
        "A secret cannot be read from where the profile says: no such file, no permission, more than one line, a "
        "variable that is not set.",
        "password: {file: /run/secrets/missing}",
        "Mount the secret, or correct the place. The file holds the password and nothing else.",
    ),
    "sync-driver": Entry(
        "A synchronous driver was named where an asynchronous engine is wanted.",
        "url: postgresql+psycopg2://app@db/shop   # and db.async_engine()",
        "Leave the `+driver` out: the installed driver of each kind is taken.",
    ),
    "test-database": Entry(
        "The database that tests get beside the profile's own one cannot be made.",
        "pytest   # and the user may not create databases",
        "Let the user create databases, or create the one that the message names.",
    ),
    "too-large": Entry(
        "A file that is larger, or deeper nested, than any configuration. It is read no further.",
        "ls -l config/production.yaml   # 3 MB: a data file under the wrong name",
        "Look whether this is the right file.",
    ),
    "unknown-database": Entry(
        "A database name that the profile does not have.",
        'db.session("analitics")',
        "Take one of the names that the message lists, or add it under `databases:`.",
    ),
    "unknown-dialect": Entry(
        "A database system or driver that is not supported.",
        "url: oracle://app@db/shop",
        "sqlite, postgresql, mysql and mariadb are supported.",
    ),
    "unknown-key": Entry(
        "A key that is not a setting. A misspelt setting would be a setting that is silently not made.",
        "max_overflw: 40",
        "Take the name that the message proposes; `dbconfig schema` lists them all.",
    ),
    "unknown-profile": Entry(
        "A profile that has no file in the configuration folder.",
        "ENVIRONMENT=prod dbconfig show   # the file is production.yaml",
        "Take one of the profiles that the message lists, or make the file.",
    ),
    "unknown-provider": Entry(
        "A password provider that nobody registered, and that no installed package brings.",
        'password: {provider: rds-iam}   # without db.password_provider("rds-iam", …)',
        "Register it before the first use, or install its package.",
    ),
    "unknown-table": Entry(
        "A table name that no imported model has. A model exists once its module has been imported.",
        "dbconfig create-tables shop.models:SQLModel.metadata ordes",
        "Take the name that the message proposes, or import the module of the model.",
    ),
    "unset-variable": Entry(
        "A `${…}` names an environment variable that is not set. Only the variables of the selected profile are "
        "needed.",
        "url: ${DATABASE_URL}",
        "Set it, in the environment or in the `.env` beside the configuration folder, or give a default: "
        "`${NAME:-default}`.",
    ),
    "wrong-type": Entry(
        "A value of another type than the key takes.",
        "pool_size: five",
        "Write a value of the type that the message names.",
    ),
    "yaml-syntax": Entry(
        "A file that is not YAML.",
        "url:sqlite:///data/app.db   # no blank after the colon",
        "Correct the place that the message points at; text with special characters goes into quotes.",
    ),
    "yaml-tag": Entry(
        "A YAML tag. A configuration is data and never names code or types.",
        "pool_size: !!python/name:os.system",
        "Write a plain text, number, list or mapping.",
    ),
}
