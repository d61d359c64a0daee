"""A network to a server that takes its time; it runs as a process, so that it takes no time of ours.

python -m benchmarks.network HOST PORT SECONDS prints its port and serves until its input ends.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.proxy import Proxy


@contextmanager
def delayed(host: str, port: int, seconds: float) -> Iterator[int]:
    """Yield the port of a network that delays each direction by half of `seconds`; the server's own for none."""
    if not seconds:
        yield port
        return
    command = [sys.executable, "-m", "benchmarks.network", host, str(port), str(seconds / 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


if __name__ == "__main__":
    with Proxy(sys.argv[1], int(sys.argv[2])) as proxy:
        proxy.delay(float(sys.argv[3]))
        print(proxy.port, flush=True)
        sys.stdin.read()
