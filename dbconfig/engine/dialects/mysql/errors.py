"""MySQL's and MariaDB's errors: which are transient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dbconfig.engine.dialects.driver_protocol import Fate

# https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html
# https://mariadb.com/kb/en/mariadb-error-code-reference/
_MYSQL: Final[Mapping[int, Fate]] = {
    1020: Fate.CONFLICT,  # ER_CHECKREAD: MariaDB's snapshot isolation
    1205: Fate.CONFLICT,  # ER_LOCK_WAIT_TIMEOUT
    1213: Fate.CONFLICT,  # ER_LOCK_DEADLOCK
    3572: Fate.CONFLICT,  # ER_LOCK_NOWAIT
    1053: Fate.LOST,  # ER_SERVER_SHUTDOWN
    1290: Fate.LOST,  # ER_OPTION_PREVENTS_STATEMENT: --read-only
    1792: Fate.LOST,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
    1836: Fate.LOST,  # ER_READ_ONLY_MODE
    1927: Fate.LOST,  # ER_CONNECTION_KILLED
    2006: Fate.LOST,  # CR_SERVER_GONE_ERROR
    2013: Fate.LOST,  # CR_SERVER_LOST
    2055: Fate.LOST,  # CR_SERVER_LOST_EXTENDED
    4031: Fate.LOST,  # ER_CLIENT_INTERACTION_TIMEOUT
    1040: Fate.ABSENT,  # ER_CON_COUNT_ERROR: too many connections
    2002: Fate.ABSENT,  # CR_CONNECTION_ERROR
    2003: Fate.ABSENT,  # CR_CONN_HOST_ERROR
}
