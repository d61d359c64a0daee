"""Run a server process: as an unprivileged user, in sight of its children, and never longer than the test run."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

# Waits for a word on its standard input. "done" means the server was stopped; the end of the pipe means that the test
# run was killed, and then nobody else is left to stop the server and remove its files. A parent-death signal would do
# without this process, but it follows the thread that started the server, not the test run.
_WATCHDOG = """
read -r word
[ "$word" = done ] && exit 0
kill -s CONT "$1"; kill -s "$2" "$1"
tries=70
while [ $tries -gt 0 ] && kill -0 "$1"; do sleep 0.1; tries=$((tries - 1)); done
kill -9 "$1"
rm -rf "$3"
"""


def chosen_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names for a server: as its archive, or a package, has it."""
    return Path(os.environ[variable]).resolve() if os.environ.get(variable) else None


def program_in(folder: Path, variable: str, *names: str) -> Path:
    """Return the first program found under one of `names` in a folder that a variable names.

    Raises:
        FileNotFoundError: there is none; to skip the tests, or to take another one, would hide that.
    """
    places = [folder / part / name for name in names for part in ("bin", "sbin", "libexec", "")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{variable} names no folder that has bin/{names[0]}: {folder}")
    return found


def find_program(*names: str, folders: Sequence[Path] = ()) -> Path | None:
    """Return the first program found under one of `names`, on the PATH and then in `folders`."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    found = (shutil.which(name, path=path) for name in names)
    return next((Path(program).resolve() for program in found if program), None)


def unprivileged(*names: str) -> dict[str, Any]:
    """Return the `subprocess` options that drop root's rights: database servers refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in (*names, "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise RuntimeError(f"none of the users {', '.join(names)}, nobody exists to run a database server as")


def own(path: Path, options: dict[str, Any]) -> None:
    """Give `path` and all below it to the user that `options`, from `unprivileged`, stand for."""
    if options:
        for each in (path, *path.rglob("*")):
            os.chown(each, options["user"], options["group"], follow_symlinks=False)


def environment() -> dict[str, str]:
    """Return our environment without what would reconfigure a server or its tools."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "MYSQL", "MARIADB", "LC_"))}
    return kept | {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


def run(command: Sequence[str | Path], *, folder: Path, options: dict[str, Any]) -> None:
    """Run a preparing command to its end.

    Raises:
        RuntimeError: it failed; with its output.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stdout}")


def _table() -> dict[int, tuple[int, str]]:
    """Return the parent and the state of every process that has not ended."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listing.splitlines()]
    else:
        rows = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name between the parentheses may itself hold blanks and parentheses.
                fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            rows.append([entry.parent.name, fields[1], fields[0]])
    return {int(pid): (int(parent), state) for pid, parent, state in rows if not state.startswith("Z")}


def descendants(pid: int) -> list[int]:
    """Return the children of `pid`, their children, and so on."""
    table = _table()
    found = [pid]
    for ancestor in found:
        found += [child for child, (parent, _) in table.items() if parent == ancestor]
    return found[1:]


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 30.0) -> None:
    """Return as soon as `condition()` is true.

    Raises:
        TimeoutError: it is still false after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(0.01)


def _stands_still(pid: int) -> bool:
    """Whether no thread of a process runs; where that cannot be seen, it is assumed."""
    states = []
    for entry in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            states.append(entry.read_text(errors="replace").rpartition(")")[2].split()[0])
    return not set(states) - set("TtZX")


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # a backend may end between being listed and being signalled
        os.kill(pid, number)


class ServerProcess:
    """A running server: one process, its children, and the watchdog that outlives us."""

    def __init__(self, process: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._watchdog = watchdog
        self.pid = process.pid
        self.paused = False

    @classmethod
    def start(
        cls, command: Sequence[str | Path], *, folder: Path, log: Path, options: dict[str, Any], quick: signal.Signals
    ) -> Self:
        """Start `command`; should we be killed, it gets the signal `quick`, and then `folder` is removed."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C in the terminal is for the test run, which then stops the server in order.
                start_new_session=True,
                **options,
            )
        watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(process.pid), quick.name.removeprefix("SIG"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process, watchdog)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def pause(self) -> None:
        self.paused = True
        # The parent first: once it stands still, no further child appears behind our back.
        self._stop_still([self.pid])
        self._stop_still(descendants(self.pid))

    @staticmethod
    def _stop_still(pids: Sequence[int]) -> None:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        # Threads on other processors run a moment longer: without this wait, MariaDB answered one time in 300.
        wait_until(lambda: all(map(_stands_still, pids)), "the end of all activity of a paused server")

    def resume(self) -> None:
        for pid in (*descendants(self.pid), self.pid):
            _send(pid, signal.SIGCONT)
        self.paused = False

    def stop(self, number: signal.Signals, *, timeout: float = 60.0) -> None:
        """Send the signal `number` and wait for the end; past `timeout` seconds, kill."""
        if self.paused:
            self.resume()
        _send(self.pid, number)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        else:
            self._dismiss_watchdog()

    def kill(self) -> None:
        """End all the processes at once, as a power cut would, and wait until they are gone."""
        victims: set[int] = set()
        if self.running:
            self.pause()
            victims = {self.pid, *descendants(self.pid)}
        for pid in victims:
            _send(pid, signal.SIGKILL)
        self._process.wait()
        # The orphans belong to init now; a restart finds the shared memory in use until the last of them is gone.
        wait_until(lambda: not victims & _table().keys(), "the end of the killed server's processes")
        self._dismiss_watchdog()

    def _dismiss_watchdog(self) -> None:
        stdin: IO[bytes] | None = self._watchdog.stdin
        if stdin is not None and not stdin.closed:
            stdin.write(b"done\n")
            stdin.close()
        self._watchdog.wait()
