"""Whom the search for the primary asks when, by a clock of the test's own."""

from itertools import pairwise

import pytest

from dbconfig.engine.dialects.server_role import Answer, Role
from dbconfig.engine.primary.search import PATIENCE, SPACING, STALE, Host, Memory, Search

A, B, C = ("a", 1), ("b", 1), ("c", 1)
HOSTS = [A, B, C]
STANDBY, PRIMARY, NODE = (
    Answer(Role.OTHER, "it is a standby"),
    Answer(Role.PRIMARY, ""),
    Answer(Role.ONE_OF_SEVERAL, ""),
)
DOWN = ConnectionRefusedError("refused")


def after(memory: Memory, now: float = 0.0, *, any_server: bool = False) -> Search:
    return Search(HOSTS, memory, now, any_server=any_server)


def found(host: Host, term: int = 0, now: float = 0.0) -> Memory:
    memory = Memory()
    memory.found(host, Answer(Role.PRIMARY, "", term), now)
    return memory


def test_who_knows_nothing_asks_all_hosts_at_once():
    search = after(Memory())
    assert search.due(0.0) == HOSTS
    assert not search.answered(A, STANDBY, 0.1)
    assert search.answered(C, PRIMARY, 0.2)
    assert search.winner == C
    assert search.is_over


def test_the_primary_of_before_is_asked_alone():
    search = after(found(B))
    assert search.due(0.0) == [B]
    assert search.next() == PATIENCE
    assert search.answered(B, PRIMARY, 0.1)
    assert search.winner == B


def test_a_silent_primary_of_before_costs_no_more_than_the_patience():
    search = after(found(B))
    search.due(0.0)
    assert search.due(PATIENCE) == [A, C]
    assert search.answered(C, PRIMARY, 0.3)
    assert search.winner == C


def test_a_primary_of_before_that_fails_lets_the_others_be_asked_at_once():
    memory = found(B)
    search = after(memory)
    search.due(0.0)
    search.answered(B, DOWN, 0.01)
    assert search.due(0.01) == [A, C]
    assert memory.primary is None


def test_nobody_is_asked_more_often_than_once_a_second_while_there_is_no_primary():
    memory, asked = Memory(), {host: list[float]() for host in HOSTS}
    now = 0.0
    while now < 10.0:
        search = after(memory, now)
        while not search.is_over:
            for host in search.due(now):
                asked[host].append(now)
                search.answered(host, DOWN, now)
            now += 0.01
        now += 0.1
    for times in asked.values():
        assert len(times) > 8
        assert min(later - earlier for earlier, later in pairwise(times)) >= SPACING


def test_a_standby_is_asked_again_while_another_host_is_silent():
    search = after(Memory())
    search.due(0.0)
    search.answered(A, STANDBY, 0.1)
    search.answered(B, STANDBY, 0.1)
    assert not search.is_over
    assert search.due(SPACING) == [A, B]
    assert search.answered(B, PRIMARY, 1.2)
    assert search.winner == B


def test_the_search_is_over_when_all_have_said_no():
    search = after(Memory())
    search.due(0.0)
    for host in HOSTS:
        search.answered(host, STANDBY if host == A else DOWN, 0.1)
    assert search.is_over
    assert search.winner is None
    assert search.said == {A: "it is a standby", B: DOWN, C: DOWN}


def test_of_several_primaries_the_first_of_the_list_is_taken_if_it_answers_in_time():
    search = after(Memory())
    search.due(0.0)
    search.answered(C, NODE, 0.1)
    assert search.choose(0.1) is None
    search.answered(A, NODE, 0.2)
    assert search.winner == A

    search = after(Memory())
    search.due(0.0)
    search.answered(C, NODE, 0.1)
    assert search.next() == pytest.approx(PATIENCE)
    assert search.choose(PATIENCE) == C


def test_a_node_that_was_silent_for_the_patience_costs_no_more_when_another_one_answers():
    search = after(found(A))
    assert search.due(0.0) == [A]
    assert search.due(PATIENCE) == [B, C]
    search.answered(C, NODE, PATIENCE + 0.02)
    assert search.choose(PATIENCE + 0.02) is None  # B, which is earlier in the list, may still answer
    assert search.answered(B, NODE, PATIENCE + 0.03)
    assert search.winner == B


def test_a_server_that_was_left_behind_by_a_promotion_is_no_primary():
    memory = found(B, term=2, now=5.0)
    memory.doubt()
    search = after(memory, 6.0)
    search.due(6.0)
    assert not search.answered(A, Answer(Role.PRIMARY, "", 1), 6.1)
    assert search.winner is None
    assert search.answered(B, Answer(Role.PRIMARY, "", 2), 6.2)


def test_a_failed_search_says_of_each_host_what_it_is_also_when_the_primary_was_known_before():
    """A standby that is said to have been superseded sends the people on call after a promotion that never was."""
    memory = found(C, term=1, now=5.0)
    memory.doubt()
    search = after(memory, 6.0)
    search.due(6.0)
    search.answered(A, STANDBY, 6.1)
    search.answered(B, Answer(Role.READ_ONLY, "its transactions are read-only by default"), 6.1)
    search.answered(C, DOWN, 6.1)
    assert search.said == {A: "it is a standby", B: "its transactions are read-only by default", C: DOWN}
    memory.found(C, Answer(Role.PRIMARY, "", 2), 7.0)
    memory.doubt()
    search = after(memory, 8.0)
    search.due(8.0)
    search.answered(A, Answer(Role.PRIMARY, "it is the primary", 1), 8.1)
    assert search.said == {A: "another server was promoted in its place"}


def test_a_cluster_that_was_restored_may_begin_with_a_lower_term():
    memory = found(B, term=9, now=0.0)
    memory.doubt()
    search = after(memory, STALE + 1)
    search.due(STALE + 1)
    assert search.answered(A, Answer(Role.PRIMARY, "", 1), STALE + 1)
    memory.found(A, Answer(Role.PRIMARY, "", 1), STALE + 1)
    assert memory.term == 1


def test_what_another_search_has_found_is_heard():
    memory = Memory()
    search = after(memory)
    search.due(0.0)
    search.answered(B, STANDBY, 0.1)
    memory.found(B, PRIMARY, 0.5)
    search.hear(0.6)
    assert search.due(0.6) == [B]


def test_any_server_is_taken_in_the_order_of_the_list():
    search = after(Memory(), any_server=True)
    assert search.due(0.0) == [A]
    search.answered(A, DOWN, 0.01)
    assert search.due(0.01) == [B]
    assert search.due(2 * PATIENCE) == [C]
    assert search.answered(C, PRIMARY, 0.6)


def test_an_answer_that_comes_too_late_is_not_kept():
    search = after(Memory())
    search.due(0.0)
    search.answered(A, PRIMARY, 0.1)
    assert not search.answered(B, PRIMARY, 0.1)
    given_up = after(Memory())
    given_up.due(0.0)
    given_up.abandon()
    assert not given_up.answered(A, PRIMARY, 0.1)


def test_a_doubt_about_another_host_than_the_primary_is_none():
    memory = found(B)
    memory.doubt(A)
    assert memory.primary == B
    memory.doubt(B)
    assert memory.primary is None
    assert memory.last == B


def test_searches_that_run_together_ask_no_host_more_often_than_one_of_them():
    memory, asked = Memory(), {host: list[float]() for host in HOSTS}
    running: list[Search] = []
    ended = 0
    for now in (each / 100 for each in range(1000)):
        while len(running) < 3:
            running.append(after(memory, now))
        for search in running:
            for host in search.due(now):
                asked[host].append(now)
                search.answered(host, DOWN, now)
        for search in [each for each in running if each.is_over]:
            assert search.said == dict.fromkeys(HOSTS, DOWN)
            search.abandon()
            running.remove(search)
            ended += 1
    for times in asked.values():
        assert len(times) > 8
        assert min(later - earlier for earlier, later in pairwise(times)) >= SPACING
    assert ended > 3 * 8  # nobody waits longer because others ask


def test_of_two_searches_one_asks_and_the_other_goes_straight_to_the_primary():
    memory = Memory()
    first, second = after(memory), after(memory)
    assert first.due(0.0) == HOSTS
    assert second.due(0.01) == []
    assert second.next() == SPACING
    first.answered(A, STANDBY, 0.1)
    assert second.said == {A: "it is a standby"}
    assert first.answered(B, PRIMARY, 0.2)
    memory.found(B, PRIMARY, 0.2)
    second.hear(0.2)
    assert second.due(0.2) == [B]
    assert second.answered(B, PRIMARY, 0.3)


def test_an_answer_from_before_a_search_has_begun_is_none_of_its_own():
    memory = Memory()
    first = after(memory)
    first.due(0.0)
    second = after(memory, 0.1)
    first.answered(A, DOWN, 0.2)
    assert second.said == {}
    assert second.due(SPACING) == HOSTS


def test_a_search_that_gave_up_still_tells_the_others_what_it_is_answered():
    memory = Memory()
    first, second = after(memory), after(memory)
    first.due(0.0)
    first.abandon()
    first.answered(A, DOWN, 0.2)
    assert second.said == {A: DOWN}
