"""A bank on each server, with a network in between that can be made to fail."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from dbconfig import Profile, Registry
from tests.support.bank import Bank, Result
from tests.support.proxy import Proxy
from tests.support.servers import Server


@dataclass
class Place:
    """Where the tellers work: `db` goes through `network`, the audit does not."""

    server: Server
    network: Proxy
    db: Registry
    bank: Bank

    def run(self, work: Callable[..., object]) -> object:
        return self.db.run_in_transaction(work, attempts=50, timeout=60)


SETTINGS = {"pool_size": 8, "max_overflow": 0, "pool_timeout": "5s", "connect_timeout": "2s"}
# N09: a server that is to let go of locks whose holder has gone silent needs these.
SETTINGS |= {"statement_timeout": "5s", "idle_in_transaction_timeout": "6s"}


@pytest.fixture
def place(server: Server, proxy: Callable[[Server], Proxy]) -> Iterator[Place]:
    network = proxy(server)
    direct = Registry.from_profile(Profile(name="audit", url=server.url()))
    url = server.url(host=network.host, port=network.port)
    with direct, Registry.from_profile(Profile(name="bank", url=url, **SETTINGS)) as db:
        bank = Bank(partial(direct.run_in_transaction, attempts=50, timeout=60))
        yield Place(server, network, db, bank)
        network.pass_through()


def show(request: pytest.FixtureRequest, result: Result) -> None:
    print(f"\n{request.node.name}: {result}")
