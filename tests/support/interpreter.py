"""Programs in processes of their own that need not import everything again: forked from one that has.

What a program of ours spends most of its time with is importing what others wrote. The process here has done so, and
becomes `python -m MODULE` in a child each time. dbconfig itself, and what the programs are, the child imports.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# Not the plugins of pytest: it rewrites their assertions, and warns if they are there already.
_IMPORTED = ("pytest", "sqlmodel", "sqlalchemy.ext.asyncio", "yaml", "dotenv", "psycopg2", "pymysql", "alembic.config")
_IMPORTED += ("pydantic_settings", "alembic.autogenerate", "email.parser", "unittest.mock", "aiosqlite", "asyncpg")


def run_module(
    command: Sequence[str], *, folder: Path, environ: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m COMMAND` in a folder, as `subprocess.run` would with its output captured."""
    return _forker(os.getpid()).run(command, folder, environ, timeout)


@cache
def _forker(pid: int) -> "Forker":  # a forked test process has one of its own
    return Forker()


class Forker:
    """This end of the process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.support.interpreter import serve; serve()"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._close)

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def run(
        self, command: Sequence[str], folder: Path, environ: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("r+") as out, tempfile.NamedTemporaryFile("r+") as err:
            order = {"command": list(command), "folder": str(folder), "environ": dict(environ), "timeout": int(timeout)}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps(order | {"out": out.name, "err": err.name}), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            result = subprocess.CompletedProcess([sys.executable, "-m", *command], code, out.read(), err.read())
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(result.args, timeout, result.stdout, result.stderr)
        return result


def serve() -> None:
    """Fork a child for each order, and say how it ended; in the child, return as the program that was ordered."""
    for name in _IMPORTED:
        try:
            import_module(name)
        except ImportError:
            continue  # not installed here
    gc.freeze()  # the garbage collector of the children need not look at what they all share
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(order: dict[str, object]) -> None:
    signal.alarm(int(str(order["timeout"])))
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (str(order["out"]), os.O_WRONLY), (str(order["err"]), os.O_WRONLY)]
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    environ = order["environ"]
    command = order["command"]
    folder = str(order["folder"])
    assert isinstance(environ, dict)
    assert isinstance(command, list)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # a program may have a package of this name
    sys.path[0] = folder
    sys.path[1:1] = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.argv = ["-m", *command[1:]]
    runpy._run_module_as_main(command[0])  # type: ignore[attr-defined]  # what `python -m` itself calls
    sys.exit()
