"""The workers of a parallel run, forked from one process that has imported the tests.

pytest-xdist has each worker collect all the tests, and more than half of that is importing them: all but a little where
they have not been compiled yet. Here one process does it for all the workers.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress

import pytest

from tests.mutation.probes import FOLDER
from tests.support.interpreter import hand_out, leave, serve_execnet, share_prototype

_PROGRAM = """
import json, sys
order = json.loads(sys.argv[1])
sys.path[:] = order.pop("path")
from tests.support.workers import serve
serve(**order)
"""


class Forked:
    """What execnet asks of the `subprocess.Popen` of a worker."""

    def __init__(self, origin: subprocess.Popen[bytes], pid: int, stdin: int, stdout: int) -> None:
        self._origin = origin
        self.pid = pid
        self.stdin = os.fdopen(stdin, "wb", 0)
        self.stdout = os.fdopen(stdout, "rb")

    def begin(self) -> None: ...

    def wait(self) -> int:
        return self._origin.wait()  # which ends after the last of them

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_workers(config: pytest.Config, count: int) -> None:
    """Let xdist, which is about to start its workers, find them forked."""
    given = [os.pipe() for _ in range(count)]
    told = [os.pipe() for _ in range(count)]
    reading, writing = os.pipe()
    ends = [(inbound[0], outbound[1]) for inbound, outbound in zip(given, told, strict=True)]
    order = {
        "path": sys.path,
        # Without the names of single tests: there are no tests where the modules are merely imported.
        "arguments": [
            *dict.fromkeys(each.partition("::")[0] for each in config.args),
            *("-m", config.option.markexpr, "--assert", config.option.assertmode),
        ],
        "ends": ends,
        "pids": writing,
    }
    theirs = [writing, *(end for pair in ends for end in pair)]
    origin = subprocess.Popen(
        [sys.executable, "-u", "-c", _PROGRAM, json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=theirs,
    )
    for end in theirs:
        os.close(end)
    with closing(os.fdopen(reading)) as lines:
        pids = [int(line) for line in lines]
    # What was not forked, xdist starts as usual: it meets the error that is in the way here, and reports it.
    ours = zip(pids, given, told, strict=False)
    hand_out([Forked(origin, pid, inbound[1], outbound[0]) for pid, inbound, outbound in ours])


def serve(arguments: Sequence[str], ends: Sequence[tuple[int, int]], pids: int) -> None:
    """Import the tests, fork a worker for each pair of ends, write down their numbers, and wait until they end."""
    _import_tests(arguments)
    others = [pids, *(end for pair in ends for end in pair)]
    # A run that records which tests execute what has a file for each worker and its programs, chosen by an import.
    prototype = None if FOLDER in os.environ else share_prototype()
    workers = []
    for stdin, stdout in ends:
        pid = os.fork()
        if pid == 0:
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            for end in others:  # each worker has to see the end of its own pipe
                os.close(end)
            leave(serve_execnet())
        workers.append(pid)
        os.write(pids, f"{pid}\n".encode())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workers
    for end in others:
        os.close(end)
    for pid in workers:
        os.waitpid(pid, 0)
    if prototype:
        prototype.close()
    os._exit(0)


def _import_tests(arguments: Sequence[str]) -> None:
    class OfNoTests:
        @pytest.hookimpl(tryfirst=True)
        def pytest_pycollect_makeitem(self) -> list[pytest.Item]:
            return []

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_ADDOPTS", raising=False)  # the workers heed it
        options = ["-p", "xdist", "--numprocesses=0", "--collect-only", "-q", "--override-ini", f"cache_dir={folder}"]
        options.append("--continue-on-collection-errors")  # so that only Ctrl-C interrupts it
        end = pytest.main([*arguments, *options], plugins=[OfNoTests()])
    if end == pytest.ExitCode.INTERRUPTED:
        os._exit(end)  # nobody wants workers any more
    gc.collect()
    gc.freeze()
