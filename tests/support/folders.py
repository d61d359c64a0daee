"""Temporary folders of servers, named after the process that made them; a later run removes what a killed one left."""

import os
import re
import shutil
import signal
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_MEMORY = Path("/dev/shm")  # where Linux keeps files in memory: a new database there takes a tenth of the time
_ENOUGH_MEMORY = 2**30  # bytes; containers often have 64 MiB, which is too little
_LONGEST_SOCKET_PATH = 107  # bytes: sun_path in <sys/un.h>, less its closing zero
_NAME = re.compile(r"dbconfig-(\d+)-(\d+)-\w+")


def short_folder(*, in_memory: bool) -> Path:
    """Make a temporary folder in which a socket's path is not too long, in memory if there is enough."""
    sweep()
    prefix = f"dbconfig-{os.getpid()}-{_namespace()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_memory() if in_memory else _disk()))


def have_pytests_in_memory() -> None:
    """Let pytest, and those that tests start, make their folders in memory if there is enough.

    There a file costs a tenth of what it does on a disk, and SQLite's waits for the disk cost nothing: the tests of
    SQLite and of YAML files took a third of their time for that.
    """
    if (place := _memory()) == _MEMORY:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))


def _memory() -> Path:
    enough = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_MEMORY
    return _MEMORY if enough else _disk()


def _disk() -> Path:
    # PostgreSQL locks its socket through a file beside it, whose name is the longer one.
    longest = "/dbconfig-1234567-12345-12345678/.s.PGSQL.65535.lock"
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) + len(longest) <= _LONGEST_SOCKET_PATH else "/tmp")


@cache  # once in a process
def sweep() -> None:
    """Remove the folders of runs that were killed, and end the servers that still run in them."""
    for place in {_MEMORY, _disk()}:
        for folder in place.glob("dbconfig-*-*"):
            match = _NAME.fullmatch(folder.name)
            if match and int(match[2]) == _namespace() and not _alive(int(match[1])):
                _end_servers(folder)
                shutil.rmtree(folder, ignore_errors=True)  # somebody else's: its owner sweeps it


def _namespace() -> int:
    """Return the namespace in which process IDs mean anything: two containers may share a folder."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino % 100_000
    except OSError:  # not Linux
        return 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user
    return True


def _end_servers(folder: Path) -> None:
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # it has ended, or is another user's
            if link.readlink().is_relative_to(folder):
                os.kill(int(link.parent.name), signal.SIGKILL)
