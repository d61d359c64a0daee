"""A pool under more load than it can bear, seen by Prometheus.

python examples/observability/main.py                  # until Ctrl-C; --seconds 60 for a minute
curl -s http://127.0.0.1:9100/metrics | grep pending
prometheus --config.file examples/observability/prometheus.yml
"""

import argparse
import random
import threading
import time
from pathlib import Path

from prometheus_client import start_http_server
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as NoConnection

from dbconfig import Registry
from dbconfig.integrations.prometheus import register

db = Registry(Path(__file__).parent / "config", profile="development")


def request(number: int) -> None:
    """Hold a connection as a request does: mostly for a moment, sometimes for too long."""
    with db.tags(job=f"load-{number % 2}"), db.session() as session:
        session.execute(text("SELECT :number"), {"number": number})
        time.sleep(0.6 if random.random() < 0.05 else random.uniform(0.01, 0.08))


def client(number: int, end: float) -> None:
    while time.monotonic() < end:
        try:
            request(number)
        except NoConnection:
            time.sleep(0.05)  # a 503 to the caller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=86_400.0)
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--clients", type=int, default=12)
    arguments = parser.parse_args()
    register(db)
    start_http_server(arguments.port, "127.0.0.1")
    print(f"http://127.0.0.1:{arguments.port}/metrics", flush=True)
    end = time.monotonic() + arguments.seconds
    threads = [threading.Thread(target=client, args=(number, end), daemon=True) for number in range(arguments.clients)]
    for each in threads:
        each.start()
    try:
        for each in threads:
            each.join()
    except KeyboardInterrupt:
        pass
    stats = db.stats()
    print(f"{stats.use.count} requests, {stats.timeouts} timed out, {stats.refused} turned away")
    for line in db.advice():
        print(line)
    db.dispose()


if __name__ == "__main__":
    main()
