"""Changes that no test can notice, each with the reason. A name without a change in its file fails a test."""

from tests.mutation.changes import Change

_NO_REFERENCE = "a reference never stands where a character of the text does, such as this separator, or at its end"
_CLIENTS_CURSOR = "a cursor on the client's side holds nothing of the server's, and ends with its last reference"
_NOBODY = "nobody waits for a connection for a day"

EQUIVALENT: dict[str, dict[str, str]] = {
    "dbconfig/config/interpolation.py": {
        "_component: 0 → 1": "of a URL that begins with `://`, which is rejected whatever is escaped in it",
        "_component: position < start → (position <= start)": _NO_REFERENCE,
        "_component: position < url.rfind(\"@\", begin, end) → (position <= url.rfind('@', begin, end))": _NO_REFERENCE,
        "_component: position < end → (position <= end)": _NO_REFERENCE,
        "_component: position < query → (position <= query)": _NO_REFERENCE,
    },
    "dbconfig/engine/pool/advice.py": {
        '_too_large: return "" → return None': "it is asked only whether there is a text",
        '_idle: return "" → return None': "it is asked only whether there is a text",
        "_recycled: 0 → 1": "none and one are both too few to say anything",
    },
    "dbconfig/engine/pool/__init__.py": {
        "attach: settings.pool_recycle >= 0 → (settings.pool_recycle > 0)": "0 is rejected, and -1 is never",
    },
    "dbconfig/engine/pool/call_watchdog.py": {
        "Watch._await_the_end_of: 0.001 → 1.001": "how soon it is seen that a connection has been shut down",
        ": 10.0 → 11.0": "how soon a thread without work ends: the next call starts it again, or finds it",
    },
    "dbconfig/engine/pool/deadline.py": {
        "Deadline.__init__: 0.0 → 1.0": "set as the block begins, before anything reads it",
    },
    "dbconfig/engine/pool/diagnostics/leaks.py": {
        ": 2 → 3": "how soon the thread of the reports ends when nobody has a connection: the next checkout starts it",
    },
    "dbconfig/engine/pool/diagnostics/stats.py": {
        "histogram: True → False": "every tally has a count for each bound, and one more",
    },
    "dbconfig/engine/pool/forks.py": {
        "Connects.begin: time.monotonic() > latest → (time.monotonic() >= latest)": (
            "at the very moment of a limit that is there so that a fork that never ends holds up no connect"
        ),
    },
    "dbconfig/engine/pool/line.py": {
        "Line.give_back: held <= _FIRST_BOUND → (held < _FIRST_BOUND)": (
            "saves a call: bisect_left puts what is equal to the first bound into the same bucket"
        ),
    },
    "dbconfig/engine/pool/maintenance.py": {
        ": 10.0 → 11.0": "how soon the thread looks again for a job that an interrupted caller removed without a word",
    },
    "dbconfig/engine/pool/ping.py": {
        ": 2.0 → 3.0": "nothing promises how long a server that is to be replaced has for a SELECT 1",
    },
    "dbconfig/engine/pool/sockets.py": {
        "set_time_limits: 1 → 2": "a switch: what is not 0 is on",
    },
    "dbconfig/engine/pool/task_places.py": {
        ": 1.0 → 2.0": "how soon a disposed pool looks again for a connection that nothing holds and nothing returned",
        "TaskPlaces._see_to_a_review: 0 < timers[-1].when() - (now := self._loop.time()) <= 3 * REVIEW → "
        "(0 <= timers[-1].when() - (now := self._loop.time()) <= 3 * REVIEW)": (
            "a round that is due at this very moment is followed by another, or is not"
        ),
    },
    "dbconfig/engine/pool/tasks.py": {
        "TaskPool._do_return_conn: doubtful_at < expires → (doubtful_at <= expires)": (
            "one of two that are equal is as good as the other"
        ),
    },
    "dbconfig/engine/pool/threads.py": {
        "FairPool.connect: record._soft_invalidate_time > record.starttime → "
        "(record._soft_invalidate_time >= record.starttime)": (
            "saves a call: SQLAlchemy compares both again, and keeps the connection if they are the same"
        ),
        "FairPool._do_return_conn: record.hold is not None and self.leaks is not None → "
        "(record.hold is not None or self.leaks is not None)": (
            "saves a call: only reports of leaks set `hold`, and `returned` does nothing for what was not reported"
        ),
    },
    "dbconfig/engine/password_rotation.py": {
        "_differs: mark[0] < number → (mark[0] <= number)": "each connect has a number of its own",
    },
    "dbconfig/engine/pool/both.py": {": 86_400.0 → 86401.0": _NOBODY},
    "dbconfig/replicas/health.py": {
        ": 100 → 101": "how many servers that are gone are remembered; a test asks for the number by its name",
        "Fleet._sample_primary: 0 → 1 #3": "only a database with replica_max_lag is sampled, and it is more than 0",
    },
    "dbconfig/replicas/positions.py": {
        "_mariadb_gtids: 0 → 1": "the numbers of MariaDB's transactions begin with 1",
    },
    "dbconfig/replicas/routing.py": {
        "Router.connect: self.watches and read_your_writes.marks() → (self.watches or read_your_writes.marks())": (
            "saves a call: mark() returns None where nothing is watched, or nothing was written"
        ),
    },
    "dbconfig/engine/dialects/server_role.py": {
        "Answer: 0 → 1": "of a system without such a number, whose servers all have this one",
    },
    "dbconfig/engine/dialects/mysql/driver.py": {
        ": 2 → 3": "the status is compared with it only where the other bit, of an open transaction, is off",
    },
    "dbconfig/engine/dialects/mysql/tls.py": {
        "_unusable: continue → break": (
            "without an authority the files that are left begin with the certificate, which is returned in the end too"
        ),
    },
    "dbconfig/engine/dialects/postgresql/pgbouncer.py": {
        "set_in_transactions.do_begin: cursor.close() → pass": _CLIENTS_CURSOR,
    },
    "dbconfig/engine/dialects/postgresql/psycopg.py": {
        "forget_stale_plans.forget: cursor.close() → pass": _CLIENTS_CURSOR,
    },
    "dbconfig/engine/dialects/postgresql/psycopg_tasks.py": {
        ": 0.1 → 1.1": (
            "how soon a wait without a limit of its own looks again: what the server sends, and a limit, end it earlier"
        ),
    },
    "dbconfig/engine/dialects/postgresql/fast_begin.py": {
        "FastBeginConnection.__init__: 1 → 2": "the turns begin with 0, and both numbers are less",
        "FastBeginCursor: 0 → 1": "of a cursor that has executed nothing, which has nothing to close on the server",
    },
    "dbconfig/engine/dialects/postgresql/refusal.py": {
        ": 30_000 → 30001": "more than any server says before the login; the limit is there for what is not a server",
    },
    "dbconfig/engine/dialects/sqlite/dropped_parents.py": {
        "_referring: True → False": "there are as many columns on both sides, or the key has been skipped before",
    },
    "dbconfig/engine/dialects/sqlite/connection.py": {
        "Connection: 0.0 → 1.0": "no connection is opened in the first second of a machine's clock",
        "Connection: False → True #4": "`fresh` is read in a transaction, and the statement that begins one sets it",
    },
    "dbconfig/errors/redaction.py": {
        'is_secret_name: SequenceMatcher(None, bare, "password").ratio() >= _NEAR_SECRET → '
        "(SequenceMatcher(None, bare, 'password').ratio() > _NEAR_SECRET)": (
            "no name has a ratio of exactly 0.72: that takes nine letters in common, and `password` has eight"
        ),
    },
    "dbconfig/settings/secret_sources.py": {
        '_withheld: raise AssertionError("only a literal secret has a text") → pass': (
            "nothing calls it: each reader of a literal has asked for the kind of the secret before"
        ),
    },
}


def reason(change: Change) -> str:
    """Return why a change makes no difference; "" if it may."""
    if change.new == "pass" and change.old.startswith(("logger.debug(", "_log.debug(")):
        return "what is logged for debugging is promised to nobody"
    return EQUIVALENT.get(change.path, {}).get(change.name, "")
