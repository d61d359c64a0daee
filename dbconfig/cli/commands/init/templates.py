"""What `dbconfig init` writes; config/ in the repository is the same, and a test compares them."""

from __future__ import annotations

from typing import Final

_MODELINE: Final = "# yaml-language-server: $schema=schema.json\n"

DEFAULT: Final = f"""{_MODELINE}# What all profiles share; each profile is laid over it.
pool_size: 5          # connections that are kept open
max_overflow: 10      # and how many more under load
pool_timeout: 30s     # how long a caller waits for one
connect_timeout: 5s
"""

DEVELOPMENT: Final = f"""{_MODELINE}# Development: a SQLite file in the project, and every statement in the log.
# This profile is taken where ENVIRONMENT is not set.
{{connection}}
echo: true
hide_parameters: true   # bound values may be personal data or secrets
"""

DEVELOPMENT_CONNECTION: Final = "url: sqlite:///data/development.db"

FROM_URL: Final = "url: ${{{name}}}   # from .env"

LIKE_ANOTHER: Final = f"""{_MODELINE}# The profile that ENVIRONMENT names.
extends: {{like}}
"""

TESTING: Final = f"""{_MODELINE}# Testing: a database in memory, private to the process and gone with it.
url: 'sqlite:///:memory:'
"""

PRODUCTION: Final = f"""{_MODELINE}# Production: the database that {{name}} names, and a pool for many requests.
# `dbconfig check --workers N` says whether the server has that many connections.
url: ${{{{{{name}}:?the database of production, such as postgresql://app:secret@db.internal/shop}}}}
pool_size: 20
max_overflow: 40
pool_recycle: 30m
pool_pre_ping: true
protected: true   # tables are never dropped here
"""

ENV_EXAMPLE: Final = """# Copy to .env: what is read there lies beneath the real environment. Never commit .env.
# ENVIRONMENT=production
# {name}=postgresql://app:secret@localhost/shop
# Any key of the profile, as DBCONFIG_…
# DBCONFIG_POOL_SIZE=5
"""


def profiles(connection: str = DEVELOPMENT_CONNECTION, name: str = "DATABASE_URL") -> dict[str, str]:
    """Return the files of a configuration folder.

    Args:
        connection: the lines of development's connection.
        name: the variable of production's URL.
    """
    return {
        "default.yaml": DEFAULT,
        "development.yaml": DEVELOPMENT.replace("{connection}", connection),
        "testing.yaml": TESTING,
        "production.yaml": PRODUCTION.format(name=name),
    }
