"""Faults of server and network under eight tellers: what was acknowledged is there once, and everybody gets on soon."""

import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import Place, show
from tests.support.processes import wait_until
from tests.support.servers import Server


def restart(place: Place) -> None:
    place.server.restart("fast", down=1.0)


def crash(place: Place) -> None:
    place.server.restart("immediate", down=1.0)


def kill(place: Place) -> None:
    place.server.kill()
    time.sleep(1.0)
    place.server.start()


def end_every_session(place: Place) -> None:
    place.server.terminate()


def reset(place: Place) -> None:
    place.network.reset()


def cut(place: Place) -> None:
    place.network.cut()


def drop_for_six_seconds(place: Place) -> None:
    place.network.swallow()
    time.sleep(6.0)
    place.network.pass_through()
    place.network.reset()  # what was swallowed is lost for ever: TCP would have sent it again, the proxy cannot


def stand_still(place: Place) -> None:
    place.server.pause()
    time.sleep(4.0)
    place.server.resume()


def slow_down(place: Place) -> None:
    place.network.delay(0.06)
    time.sleep(3.0)
    place.network.delay(0.0)


def drop_silently(place: Place) -> None:
    place.network.swallow_existing()


# What it is, and how many of eight tellers may be told "uncertain".
FAULTS: dict[str, tuple[Callable[[Place], None], int]] = {
    "N01 fast restart, 1 s down": (restart, 8),
    "N02 immediate stop, crash recovery": (crash, 8),
    "N03 kill -9 of the server": (kill, 8),
    "N04 every session ended": (end_every_session, 8),
    "N07 every connection reset": (reset, 8),
    "N07 every connection closed": (cut, 8),
    "N09 existing connections go silent in mid-transaction": (drop_silently, 8),
    "N10 everything dropped for 6 s": (drop_for_six_seconds, 8),
    "N12 the server stands still for 4 s": (stand_still, 0),
    "N14 60 ms each way": (slow_down, 0),
}
SOON = 90.0  # seconds after which all must be back, on a busy machine too; how long it took is printed
SLOW = ("N09", "N10", "N12")


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=pytest.mark.slow if name[:3] in SLOW else ()) for name in FAULTS]
)
def test_nothing_is_lost_and_nothing_done_twice(place: Place, fault: str, request: pytest.FixtureRequest) -> None:
    strike, uncertain = FAULTS[fault]
    with place.bank.open(place.run) as shift:
        strike(place)
        shift.healed()
        shift.wait_for_work(limit=SOON)
    result = shift.result()
    show(request, result)
    assert result.sound, result
    assert dict(result.errors) == {}
    assert result.uncertain <= uncertain
    assert result.recovery is not None


@pytest.mark.parametrize("delivered", [True, False], ids=["N19 the reply is lost", "N20 the COMMIT is lost"])
def test_a_commit_of_which_nobody_knows_is_told_and_never_repeated(
    place: Place, delivered: bool, request: pytest.FixtureRequest
) -> None:
    with place.bank.open(place.run) as shift:
        place.network.reset_counters()
        # As a statement of its own: each new connection of PyMySQL says SET AUTOCOMMIT.
        commit = b"\x03COMMIT" if place.server.kind == "mariadb" else b"COMMIT"
        place.network.cut_when(commit, after_forwarding=delivered, times=10)
        wait_until(lambda: place.network.cuts == 10, "ten cuts")
        shift.healed()
        shift.wait_for_work()
    result = shift.result()
    show(request, result)
    assert place.network.cuts == 10
    assert result.sound, result
    assert dict(result.errors) == {}
    assert result.uncertain == 10


def test_n18_a_wrong_password_is_told_soon_with_its_user_and_without_a_storm(
    server: Server, proxy: Callable[..., object]
) -> None:
    from sqlalchemy.exc import DBAPIError

    from dbconfig import Profile, Registry
    from tests.registries import ask, at_once

    way = proxy(server)
    url = server.url(host=way.host, port=way.port, password="wr0ng-canary")  # type: ignore[attr-defined]
    told: list[str] = []

    def attempt(db: Registry) -> None:
        with pytest.raises(DBAPIError) as caught:
            ask(db, "SELECT 1")
        told.append(f"{caught.value}{getattr(caught.value, '__notes__', '')}")

    with Registry.from_profile(Profile(name="wrong", url=url, pool_timeout="5s")) as db:
        at_once([lambda: attempt(db)] * 8)
    assert all(server.user in text for text in told)
    assert not any("wr0ng-canary" in text for text in told)
    assert way.accepted <= 20  # type: ignore[attr-defined]
