"""The profiles that `dbconfig init` writes; config/ in the repository is the same, and a test compares them."""

from __future__ import annotations

from typing import Final

_MODELINE: Final = "# yaml-language-server: $schema=schema.json\n"

DEFAULT: Final = f"""{_MODELINE}# Settings that every profile shares; a profile overrides them.
pool_size: 5          # connections to keep open
max_overflow: 10      # further connections under load
pool_timeout: 30s     # how long a caller waits for a connection
connect_timeout: 5s
"""

DEVELOPMENT: Final = f"""{_MODELINE}# Development: this profile is used when ENVIRONMENT is not set.
{{connection}}
echo: false             # true logs every SQL statement
hide_parameters: true   # keeps bound values, which may be secrets, out of the log
"""

DEVELOPMENT_CONNECTION: Final = "url: sqlite:///data/development.db"

FROM_URL: Final = "url: ${{{name}}}   # {source}"

LIKE_ANOTHER: Final = f"""{_MODELINE}# The profile that ENVIRONMENT selects.
extends: {{like}}
"""

TESTING: Final = f"""{_MODELINE}# Testing: a database in memory, private to the process.
url: 'sqlite:///:memory:'
"""

PRODUCTION: Final = f"""{_MODELINE}# Production: the database in {{name}}, and a pool for many requests.
# `dbconfig check --workers N` tells you whether the server allows that many connections.
url: ${{{{{{name}}:?the database of production, such as postgresql://app:secret@db.internal/shop}}}}
pool_size: 20
max_overflow: 40
pool_recycle: 30m
pool_pre_ping: true
protected: true   # reject drop_tables and other destructive commands
"""

ENV_EXAMPLE: Final = """# Copy this file to .env. Real environment variables override it. Never commit .env.
# ENVIRONMENT=production
# {name}=postgresql://app:secret@localhost/shop
# DBCONFIG_… overrides any key of the profile:
# DBCONFIG_POOL_SIZE=5
"""


# What each file is for, as `dbconfig init` prints it.
PURPOSES: Final = {
    "config/default.yaml": "settings that every profile shares",
    "config/development.yaml": "the profile used when ENVIRONMENT is not set",
    "config/testing.yaml": "SQLite in memory, for tests",
    "config/production.yaml": "reads {name}, and rejects drop_tables",
    "config/schema.json": "completion and checks in your editor",
    ".env.example": "a template for .env",
}


def profiles(connection: str = DEVELOPMENT_CONNECTION, name: str = "DATABASE_URL") -> dict[str, str]:
    """Return the files of a configuration folder.

    Args:
        connection: the lines of development's connection.
        name: the variable with production's URL.
    """
    return {
        "default.yaml": DEFAULT,
        "development.yaml": DEVELOPMENT.replace("{connection}", connection),
        "testing.yaml": TESTING,
        "production.yaml": PRODUCTION.format(name=name),
    }
