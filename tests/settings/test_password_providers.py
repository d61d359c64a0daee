"""Passwords from providers: who is asked, how often, for how long, and what is told when one fails."""

import importlib
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dbconfig import ConfigError, DatabaseSettings, Profile, Registry
from dbconfig.settings.password_providers import HANGING_AT_MOST
from tests.support.processes import wait_until

CANARY = "c4n4ry-t0ken"


def registry(name: str = "tokens", **settings: object) -> Registry:
    url = "postgresql://app@db.internal:6432/shop"
    return Registry.from_profile(Profile(name="cloud", url=url, password={"provider": name}, **settings))


def ask(db: Registry) -> str | None:
    """Read the password as a new connection does."""
    return db.parts.profiles.resolve("default").settings.read_password()


def test_a_provider_gets_the_settings_and_is_asked_each_time() -> None:
    seen: list[tuple[str | None, int | None, str | None]] = []

    def token(settings: DatabaseSettings) -> str:
        seen.append((settings.address.host, settings.address.port, settings.address.username))
        return f"{CANARY}-{len(seen)}\n"

    db = registry()
    db.password_provider("tokens", token)
    assert [ask(db), ask(db)] == [f"{CANARY}-1", f"{CANARY}-2"]
    assert seen == [("db.internal", 6432, "app")] * 2


def test_making_the_engine_asks_nobody_but_an_unknown_provider_is_told_with_those_that_exist() -> None:
    db = registry("tokns")
    db.password_provider("tokens", lambda settings: pytest.fail("asked too early"))
    with pytest.raises(ConfigError) as caught:
        db.engine()
    (problem,) = caught.value.problems
    assert problem.slug == "unknown-provider"
    assert problem.help == "did you mean 'tokens'?"
    assert registry("tokens").profile.databases["default"].password is not None
    known = registry("tokens")
    known.password_provider("tokens", lambda settings: pytest.fail("asked too early"))
    assert known.engine().url.password is None


def test_a_package_provides_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vault_of_tests.py").write_text(f"def token(settings):\n    return {CANARY!r} + settings.backend\n")
    information = tmp_path / "vault_of_tests-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-of-tests\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[dbconfig.password_providers]\nvault = vault_of_tests:token\nbroken = no_such_module:token\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert ask(registry("vault")) == f"{CANARY}postgresql"
    # Also for who has settings and no registry.
    assert (
        Profile(name="p", url="postgresql://a@h/d", password={"provider": "vault"})
        .databases["default"]
        .sqlalchemy_url()
        .password
        == f"{CANARY}postgresql"
    )
    with pytest.raises(ConfigError, match="'broken': no_such_module:token cannot be imported"):
        registry("broken").engine()


def fail(settings: DatabaseSettings) -> str:
    raise LookupError("the lease is over")


async def coroutine(settings: DatabaseSettings) -> str:
    return CANARY


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (fail, "failed with LookupError"),
        (lambda settings: "", "returned an empty text"),
        (lambda settings: None, "returned NoneType, not text"),
        (lambda settings: CANARY.encode(), "returned bytes, not text"),
        (lambda settings: f"{CANARY}\n{CANARY}", "more than one line"),
        (coroutine, "coroutine function"),
    ],
    ids=["raises", "empty", "nothing", "bytes", "two lines", "async"],
)
def test_a_provider_that_fails_is_named_and_what_it_returned_is_not(
    function: Callable[[DatabaseSettings], str], told: str
) -> None:
    db = registry()
    db.password_provider("tokens", function)
    with pytest.raises(ConfigError) as caught:
        ask(db)
    assert "password provider 'tokens'" in str(caught.value)
    assert told in str(caught.value)
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.__context__!r}"
    if function is fail:
        assert isinstance(caught.value.__cause__, LookupError)


def test_a_provider_that_hangs_is_left_at_its_time_limit_and_its_threads_stay_few() -> None:
    released = threading.Event()

    def hang(settings: DatabaseSettings) -> str:
        released.wait(60)
        return CANARY

    db = registry()
    db.password_provider("tokens", hang, timeout=0.1)
    before = threading.active_count()
    try:
        for _ in range(HANGING_AT_MOST):
            with pytest.raises(ConfigError, match=r"'tokens': no answer within 0\.1 s"):
                ask(db)
        with pytest.raises(ConfigError, match="earlier calls have not returned"):
            ask(db)
        assert threading.active_count() <= before + HANGING_AT_MOST
    finally:
        released.set()
    wait_until(lambda: threading.active_count() <= before, "the end of the calls")
    assert ask(db) == CANARY


def test_a_forked_child_does_not_inherit_the_calls_that_hang() -> None:
    released = threading.Event()
    db = registry()
    db.password_provider("tokens", lambda settings: str(released.wait(30)), timeout=0.05)
    for _ in range(HANGING_AT_MOST):
        with pytest.raises(ConfigError):
            ask(db)
    child = os.fork()
    if child == 0:
        try:
            db.password_provider("tokens", lambda settings: CANARY)
            os._exit(0 if ask(db) == CANARY else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    released.set()


def test_settings_of_a_provider_show_and_pickle_its_name_only() -> None:
    db = registry()
    db.password_provider("tokens", lambda settings: CANARY)
    settings = db.profile.databases["default"]
    assert settings.model_dump()["password"] == {"provider": "tokens"}
    assert pickle.loads(pickle.dumps(settings)).password == settings.password
    bound = db.parts.profiles.resolve("default").settings
    assert CANARY not in f"{bound!r} {bound.model_dump_json()} {vars(bound)}"


@pytest.mark.parametrize(("function", "timeout"), [("not a function", 1.0), (lambda settings: "", 0.0)])
def test_what_cannot_be_a_provider_is_refused_when_it_is_registered(function: object, timeout: float) -> None:
    with pytest.raises((TypeError, ValueError), match="'tokens'"):
        registry().password_provider("tokens", function, timeout=timeout)  # type: ignore[arg-type]
