"""Programs in processes of their own that need not import everything again: forked from one that has.

What a program of ours spends most of its time with is importing, and taking apart at its end what was imported. The
process here has imported what others wrote, once for all workers of a run. For each worker it forks a server, and that
a child for each program, which becomes what `python` with these arguments is, and leaves without taking anything apart.
What is not pytest is forked from another process, which has imported dbconfig too.

So are the workers of a pytest that runs in parallel, which otherwise import it all again.

A test of what is imported or of an interpreter's options wants an interpreter of its own; one of its end says so.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType, TracebackType
from typing import IO, Protocol

from tests.support import prototype
from tests.support.processes import wait_until
from tests.support.prototype import Prototype

# Not the plugins of pytest: it rewrites their assertions, and warns if they are there already. dbconfig is one.
_IMPORTED = ("pytest", "sqlmodel", "sqlalchemy.ext.asyncio", "yaml", "dotenv", "psycopg2", "pymysql", "alembic.config")
_IMPORTED += ("pydantic_settings", "alembic.autogenerate", "email.parser", "unittest.mock", "aiosqlite", "asyncpg")
_IMPORTED += ("flask", "trio", "execnet", "attrs", "platformdirs", "xml.etree.ElementTree")
_IMPORTED_WITH_OURS = ("fastapi.testclient",)  # it imports anyio, which has a plugin
_PYTEST, _OTHERS = b"p", b"o"  # the kinds of servers


def run_python(
    arguments: Sequence[str | Path],
    *,
    folder: Path,
    environ: Mapping[str, str],
    timeout: float = 120,
    stdin: str = "",
    whole: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in a folder, as `subprocess.run` would with its output captured.

    Args:
        arguments: `-W error` and the like, if wanted, and then a script, `-m` and a module, or `-c` and code, with
            their arguments.
        stdin: what the program can read.
        whole: take apart at the end what is imported, as an interpreter does.
    """
    words = [str(each) for each in arguments]
    return _forker(os.getpid(), _kind(words)).run(words, folder, environ, timeout, stdin, whole)


def run_module(
    command: Sequence[str], *, folder: Path, environ: Mapping[str, str], timeout: float, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `python -m COMMAND`; see `run_python`."""
    return run_python(["-m", *command], folder=folder, environ=environ, timeout=timeout, stdin=stdin)


@contextmanager
def started_python(
    arguments: Sequence[str | Path],
    *,
    folder: Path,
    environ: Mapping[str, str],
    timeout: float = 120,
    whole: bool = False,
) -> Iterator["Program"]:
    """Start what `run_python` runs, to go on beside it; at the end of the block it is killed if it still runs."""
    words = [str(each) for each in arguments]
    program = _forker(os.getpid(), _kind(words)).start(words, folder, environ, timeout, whole)
    try:
        yield program
    finally:
        program.close()


class Program:
    """A program that runs: what is used here of a `subprocess.Popen` with pipes for its output.

    Attributes:
        returncode: None as long as nobody has seen its end.
    """

    def __init__(self, forker: "Forker", pid: int, out: Path, err: Path) -> None:
        self._forker = forker
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = out.open(encoding="utf-8")  # waits until the program has opened it
        self.stderr = err.open(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)  # which is its number until the process that forked it is asked how it ended

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forker.code_of(self.pid)
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Return the rest of what it writes, and wait for its end."""
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.append(self.stderr.read()), daemon=True)
        reader.start()
        out = self.stdout.read()  # the alarm of the program ends this
        reader.join()
        self.wait(timeout)
        return out, told[0]

    def wait(self, timeout: float) -> int:
        wait_until(lambda: self.poll() is not None, f"the end of program {self.pid}", timeout=timeout)
        assert self.returncode is not None
        return self.returncode

    def close(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait(30)
        self.stdout.close()
        self.stderr.close()


_shared: list[Prototype] = []


def share_prototype() -> Prototype:
    """Start the process from which all programs are forked: those of this process, and of what is forked from it."""
    _shared.append(Prototype(__name__))
    return _shared[-1]


@cache
def _own_prototype(pid: int) -> Prototype:  # a forked test process has one of its own
    return Prototype(__name__)


@cache
def _forker(pid: int, kind: bytes) -> "Forker":
    for each in _shared:
        with suppress(OSError):  # it was killed
            return Forker(each.connect(kind))
    return Forker(_own_prototype(pid).connect(kind))


def _kind(arguments: Sequence[str]) -> bytes:
    is_pytest = arguments[:2] == ["-m", "pytest"] or Path(arguments[0]).name == "pytest"
    return _PYTEST if is_pytest else _OTHERS


class Forker:
    """This end of the connection to a process that forks."""

    def __init__(self, connection: socket.socket) -> None:
        self._asking = threading.Lock()
        self._connection = connection
        self._answers = connection.makefile(encoding="utf-8")
        atexit.register(self._close)

    def _close(self) -> None:
        self._answers.close()
        self._connection.close()

    def _ask(self, order: Mapping[str, object]) -> str:
        with self._asking:
            self._connection.sendall((json.dumps(order) + "\n").encode())
            answer = self._answers.readline()
        if not answer:
            raise EOFError("the process that forks programs has ended")
        return answer.strip()

    def start(
        self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], timeout: float, whole: bool
    ) -> Program:
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            os.mkfifo(out)
            os.mkfifo(err)
            order = {"arguments": arguments, "folder": str(folder), "environ": dict(environ), "timeout": int(timeout)}
            order |= {"in": os.devnull, "out": str(out), "err": str(err), "beside": True, "whole": whole}
            return Program(self, int(self._ask(order)), out, err)

    def code_of(self, pid: int) -> int | None:
        """Return how a started program has ended, or None; ask no more once it has."""
        answer = self._ask({"program": pid})
        return int(answer) if answer else None

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
        timeout: float,
        stdin: str,
        whole: bool,
    ) -> subprocess.CompletedProcess[str]:
        with (
            tempfile.NamedTemporaryFile("r+", encoding="utf-8") as given,
            tempfile.NamedTemporaryFile("r+", encoding="utf-8") as out,
            tempfile.NamedTemporaryFile("r+", encoding="utf-8") as err,
        ):
            given.write(stdin)
            given.flush()
            order = {"arguments": arguments, "folder": str(folder), "environ": dict(environ), "timeout": int(timeout)}
            order |= {"in": given.name, "out": out.name, "err": err.name, "whole": whole}
            code = int(self._ask(order))
            result = subprocess.CompletedProcess([sys.executable, *arguments], code, out.read(), err.read())
        if code == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(result.args, timeout, result.stdout, result.stderr)
        return result


def serve(control: int) -> None:
    """Fork a server for each connection that is handed in."""
    prototype.ignore_ctrl_c()
    second: socket.socket | None = None
    with socket.socket(fileno=control) as incoming:
        for kind, connection in prototype.handed_in(incoming):
            _import(_IMPORTED)
            if kind == _PYTEST:
                prototype.fork_server(_answer, connection, incoming, *([second] if second else []))
            else:
                second = second or _second(incoming, connection)
                prototype.hand_in(second, kind, connection)
    if second:
        second.close()
    prototype.reap()


def _second(*others: socket.socket) -> socket.socket:
    """Start the process that has imported dbconfig; return where connections are handed in to it."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    for each in (ours, *others):
        each.close()
    _import((*_own_modules(), *_IMPORTED_WITH_OURS))
    for _, connection in prototype.handed_in(theirs):
        prototype.fork_server(_answer, connection, theirs)
    prototype.reap()
    os._exit(0)


@cache  # once in a process
def _import(names: tuple[str, ...]) -> None:
    for name in names:
        try:
            import_module(name)
        except ImportError:
            continue  # not installed here
    gc.collect()
    gc.freeze()  # the garbage collector of the children need not look at what they all share


def _answer(connection: socket.socket) -> None:
    """Do what is ordered, one after the other; end what still runs when there can be no more orders."""
    started: set[int] = set()
    with suppress(BrokenPipeError, ConnectionResetError), connection.makefile(encoding="utf-8") as orders:
        for line in orders:
            order = json.loads(line)
            answer = _state(order["program"], started) if "program" in order else _fork(order, connection, started)
            connection.sendall(f"{answer}\n".encode())
    for child in started:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _state(child: int, started: set[int]) -> str:
    """Return how a program that was started has ended, if it has."""
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        return ""
    started.remove(child)
    return str(os.waitstatus_to_exitcode(status))


def _fork(order: dict[str, object], connection: socket.socket, started: set[int]) -> str:
    """Run a program; return how it has ended or, if it was only to be started, its number."""
    child = os.fork()
    if child == 0:
        os.close(connection.detach())
        code = _become(order)
        if order["whole"]:
            # Out of all that is above us, into the end of the interpreter. What was imported before the fork stays out
            # of its last collection, which would otherwise take longer than to import it again.
            sys.exit(code)
        leave(code)
    if "beside" in order:
        started.add(child)
        return str(child)
    _end_with(connection, child)
    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _end_with(connection: socket.socket, child: int) -> None:
    """Wait for the end of a program or of the one who ordered it, and then end the program."""
    try:
        end = os.pidfd_open(child)
    except (AttributeError, OSError):  # not on Linux, or forbidden: such a program runs until its time limit
        return
    ready, _, _ = select.select([end, connection.fileno()], [], [])
    os.close(end)
    if end not in ready:
        os.kill(child, signal.SIGKILL)


def _own_modules() -> list[str]:
    """Return the modules of dbconfig, but for the integrations, which are what some of the programs are about."""
    package = import_module("dbconfig")
    names = [each.name for each in walk_packages(package.__path__, "dbconfig.")]
    others = ("integrations", "_template", "__main__")
    return [name for name in names if not any(other in name for other in others)]


def _become(order: dict[str, object]) -> int:
    """Run what was ordered; return the exit code."""
    prototype.heed_ctrl_c()
    signal.alarm(int(str(order["timeout"])))
    for number, (path, flags) in enumerate(
        [(str(order["in"]), os.O_RDONLY), (str(order["out"]), os.O_WRONLY), (str(order["err"]), os.O_WRONLY)]
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # the one of the process that forks has read ahead
    environ = order["environ"]
    arguments = order["arguments"]
    assert isinstance(environ, dict)
    assert isinstance(arguments, list)
    os.chdir(str(order["folder"]))
    os.environ.clear()
    os.environ.update(environ)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # a program may have a package of this name
    sys.path[1:1] = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if "-n" in arguments:
        hand_out([_Worker() for _ in range(int(arguments[arguments.index("-n") + 1]))])
    try:
        _run(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException as error:
        shown = _below_ours(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        return 1
    return 0


def _run(arguments: list[str]) -> None:
    while arguments[0] == "-W":
        sys.warnoptions.append(arguments[1])
        warnings._setoption(arguments[1])  # type: ignore[attr-defined]  # what an interpreter does with it
        arguments = arguments[2:]
    first, *others = arguments
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = ["-m", *others[1:]]
        runpy._run_module_as_main(others[0])  # type: ignore[attr-defined]  # what `python -m` itself calls
        return
    program = ModuleType("__main__")
    sys.modules["__main__"] = program
    if first == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), vars(program))
        return
    sys.path[0] = str(Path(first).parent)
    sys.argv = arguments
    program.__file__ = first
    exec(compile(Path(first).read_bytes(), first, "exec"), vars(program))


class _Worker:
    """What execnet asks of a `subprocess.Popen`; the process exists, and waits for the environment it is started with.

    It is forked before pytest is configured: it knows no plugin and no module of the project.
    """

    def __init__(self) -> None:
        inbound, outbound = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(inbound[0], 0)
            os.dup2(outbound[1], 1)
            os.closerange(3, 256)  # the other workers' pipes too, of which each has to see the end
            _heed_environment()
            leave(serve_execnet())
        os.close(inbound[0])
        os.close(outbound[1])
        self.stdin = os.fdopen(inbound[1], "wb", 0)
        self.stdout = os.fdopen(outbound[0], "rb")

    def begin(self) -> None:
        self.stdin.write((json.dumps(dict(os.environ)) + "\n").encode())

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _heed_environment() -> None:
    line = bytearray()
    while not line.endswith(b"\n"):  # no more than the line: execnet reads the rest from the pipe itself
        if not (byte := os.read(0, 1)):
            leave(0)  # nobody wants this worker
        line += byte
    os.environ.clear()
    os.environ.update(json.loads(line))


def serve_execnet() -> int:
    """Be the interpreter that execnet starts: `python -c`, with the program in the first line of its input."""
    sys.modules["__main__"] = program = ModuleType("__main__")
    sys.argv = ["-c"]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    exec("import sys; exec(eval(sys.stdin.readline()))", vars(program))
    return 0


class ForkedWorker(Protocol):
    """What execnet asks of a `subprocess.Popen`, and a word before it asks."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def begin(self) -> None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


def hand_out(waiting: Sequence[ForkedWorker]) -> None:
    """Let execnet, by which pytest-xdist starts its workers, find them forked."""
    from execnet import gateway_base, gateway_io

    left = list(waiting)

    class ForkedIO(gateway_io.Popen2IOMaster):
        def __init__(self, args: object, execmodel: gateway_base.ExecModel) -> None:
            if not left:  # one that replaces a worker that died
                super().__init__(args, execmodel)
                return
            self.popen = worker = left.pop(0)
            worker.begin()
            gateway_base.Popen2IO.__init__(self, worker.stdin, worker.stdout, execmodel=execmodel)

    gateway_io.Popen2IOMaster = ForkedIO  # type: ignore[misc]  # for the life of this process


def _below_ours(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


def leave(code: int) -> None:
    """End as an interpreter does, up to where it would take apart all that is imported."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect()  # what was forgotten warns
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)
