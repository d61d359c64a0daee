"""AWS Lambda: one connection for each frozen copy of the process, looked at when it thaws.

The profile of such a function: `pool_size: 1`, `max_overflow: 0`, `pool_pre_ping: true`. A process that is frozen
between two calls keeps its connection; if the server closed it meanwhile, the check at its next use replaces it.
"""

import jobs

from dbconfig import db


def handler(event: dict[str, int], context: object) -> dict[str, int]:
    return {"process": jobs.run(event.get("number", 0)), "connections": db.engine().pool.checkedin()}  # type: ignore[attr-defined]
