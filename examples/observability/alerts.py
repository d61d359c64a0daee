"""The example, a Prometheus beside it, and the alerts as they begin to fire; it ends when two of them do.

python examples/observability/alerts.py                # needs `prometheus`: apt-get install prometheus
"""

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        return int(plug.getsockname()[1])


def firing(address: str) -> dict[str, str]:
    """Return the alerts that fire, each with its summary."""
    try:
        with urlopen(f"{address}/api/v1/alerts", timeout=10) as answer:
            alerts = json.load(answer)["data"]["alerts"]
    except (URLError, ConnectionError):
        return {}  # it is starting
    named = ((each["labels"]["alertname"], each) for each in alerts if each["state"] == "firing")
    return {name: each["annotations"]["summary"] for name, each in named}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alerts", type=int, default=2, help="how many have to fire")
    parser.add_argument("--seconds", type=float, default=180.0, help="when to give up")
    arguments = parser.parse_args()
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        print("prometheus is not installed: apt-get install --no-install-recommends prometheus", file=sys.stderr)
        return 2
    port, own = free_port(), free_port()
    address = f"http://127.0.0.1:{own}"
    with tempfile.TemporaryDirectory() as folder:
        # The example's own configuration, with a free port, and with the rules where they are.
        rules = str(HERE.parents[1] / "contrib" / "prometheus" / "alerts.yml")
        written = (HERE / "prometheus.yml").read_text().replace("../../contrib/prometheus/alerts.yml", rules)
        config = Path(folder) / "prometheus.yml"
        config.write_text(written.replace("127.0.0.1:9100", f"127.0.0.1:{port}"))
        example = [sys.executable, HERE / "main.py", "--port", str(port), "--seconds", str(arguments.seconds + 30)]
        storage = [f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb"]
        load = subprocess.Popen(example, stderr=subprocess.DEVNULL)
        server = subprocess.Popen([prometheus, *storage, f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"])
        try:
            return show(address, arguments.alerts, time.monotonic() + arguments.seconds)
        finally:
            server.terminate()
            server.wait()
            load.send_signal(signal.SIGINT)
            load.wait()


def show(address: str, wanted: int, end: float) -> int:
    began, shown = time.monotonic(), set[str]()
    print(f"{address}/alerts", flush=True)
    while len(shown) < wanted:
        for name, summary in firing(address).items():
            if name not in shown:
                shown.add(name)
                print(f"{time.monotonic() - began:5.1f} s  {name} fires: {summary}", flush=True)
        if time.monotonic() > end:
            print(f"{len(shown)} of {wanted} alerts fired", file=sys.stderr)
            return 1
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
