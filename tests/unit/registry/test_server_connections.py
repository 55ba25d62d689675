"""Who gets a place at a server: nobody keeps others away by holding connections, whatever he sends or does not send."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from regwrap.registry.server_connections import Guest, ServerConnections


@dataclass
class Door:
    """`limit` places. Who comes has a socket whose other end is `others`."""

    limit: int = 4
    stack: ExitStack = field(default_factory=ExitStack)
    begun: list[Guest] = field(default_factory=list)
    others: dict[Guest, socket.socket] = field(default_factory=dict)
    fails: bool = False

    def __post_init__(self) -> None:
        self.connections = ServerConnections(self.start, limit=self.limit)

    def start(self, guest: Guest) -> None:
        if self.fails:
            raise RuntimeError("no thread")
        self.begun.append(guest)

    def guest(self, address: str = "10.0.0.1", *, answered: bool = True, since: float = 0) -> Guest:
        """Who comes, and is answered for `since` seconds, or waits for so long without a request."""
        own, other = (self.stack.enter_context(end) for end in socket.socketpair())
        guest = Guest(own, address)
        self.others[guest] = other
        self.connections.come(guest)
        if answered:
            guest.is_heard()
        guest.began -= since
        if guest.idle_since is not None:
            guest.idle_since -= since
        return guest

    def guests(self, *addresses: str, answered: bool = True, since: float = 0) -> list[Guest]:
        return [self.guest(address, answered=answered, since=since) for address in addresses]

    def is_ended(self, guest: Guest) -> bool:
        """Whether its client sees the end of the connection."""
        other = self.others[guest]
        other.setblocking(False)
        try:
            return other.recv(1) == b""
        except BlockingIOError:
            return False

    def ended(self, guests: list[Guest]) -> list[int]:
        return [number for number, guest in enumerate(guests) if self.is_ended(guest)]


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door()
    with found.stack:
        yield found


def test_as_many_are_answered_as_there_are_places_and_the_next_when_one_goes(door: Door) -> None:
    guests = door.guests(*["10.0.0.1"] * 6)
    assert door.begun == guests[:4]
    assert door.connections.is_crowded()
    door.connections.go(guests[1])
    assert door.begun == guests[:5]
    for guest in (guests[0], guests[2], guests[3]):
        door.connections.go(guest)
    assert door.begun == guests
    assert not door.connections.is_crowded()
    assert door.ended(guests) == []


def test_who_holds_least_is_next(door: Door) -> None:
    """One address with a thousand connections does not keep the others waiting."""
    first = door.guests("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2")
    waiting = door.guests("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.3")
    for guest, following in zip(first, (2, 0, 1, 3), strict=True):
        door.connections.go(guest)
        assert door.begun[-1] is waiting[following]


def test_more_than_can_wait_are_turned_away() -> None:
    door = Door(limit=1)
    with door.stack:
        guests = door.guests(*["10.0.0.1"] * 18)
        assert door.ended(guests) == [17]
        door.connections.go(guests[0])
        assert not door.is_ended(door.guest())


def test_who_waits_is_turned_away_at_the_end(door: Door) -> None:
    guests = door.guests(*["10.0.0.1"] * 6)
    door.connections.close()
    assert door.ended(guests) == [4, 5]
    door.connections.go(guests[0])
    assert door.begun == guests[:4]


def test_a_connection_that_cannot_be_begun_leaves_its_place(door: Door) -> None:
    door.fails = True
    with pytest.raises(RuntimeError, match="no thread"):
        door.guest()
    door.fails = False
    assert door.guests(*["10.0.0.1"] * 4) == door.begun
    assert door.ended(list(door.others)) == [0]


def test_nobody_who_is_answered_is_ended_for_it(door: Door) -> None:
    guests = door.guests("10.0.0.1", "10.0.0.2", since=10_000)
    door.connections.look()
    assert door.ended(guests) == []


def test_who_sends_no_request_for_half_a_minute_is_ended(door: Door) -> None:
    guests = [door.guest(answered=False, since=seconds) for seconds in (25, 30)]
    door.connections.look()
    assert door.ended(guests) == [1]


def test_who_sends_no_further_request_for_half_a_minute_is_ended_and_who_waited_for_his_place_is_not(
    door: Door,
) -> None:
    """The half minute begins when he is answered, and anew after each answer."""
    guests = door.guests(*["10.0.0.1"] * 4)
    late = door.guest(answered=False)
    late.idle_since = (late.idle_since or 0) - 31
    door.connections.go(guests[0])
    assert door.begun[-1] is late
    guests[1].waits()
    guests[1].idle_since = (guests[1].idle_since or 0) - 31
    door.connections.look()
    assert door.ended([*guests, late]) == [1]


def test_where_others_wait_who_sends_nothing_has_a_second(door: Door) -> None:
    guests = [door.guest(answered=False, since=seconds) for seconds in (0, 2, 3, 0)]
    door.connections.look()
    assert door.ended(guests) == [], "nobody waits"
    door.guest("10.0.0.9", answered=False)
    assert door.ended(guests) == [2], "one waits, and the one that has idled longest makes room for it"


def test_a_second_is_over_after_a_second(door: Door) -> None:
    guests = [door.guest(), door.guest(), door.guest(), door.guest(answered=False, since=1)]
    door.guest("10.0.0.9", answered=False)
    assert door.ended(guests) == [3]


def test_of_one_address_who_has_idled_longest_makes_room_first() -> None:
    door = Door(limit=9)
    with door.stack:
        guests = [door.guest(answered=False, since=seconds) for seconds in range(10, 100, 10)]
        for place in range(8, 4, -1):
            door.guest(f"10.0.1.{place}", answered=False)
            assert door.ended(guests)[:1] == [place]


def test_the_address_that_holds_most_makes_room_first(door: Door) -> None:
    guests = [
        door.guest("10.0.0.1", answered=False, since=20),
        door.guest("10.0.0.2", answered=False, since=5),
        door.guest("10.0.0.2", answered=False, since=6),
        door.guest("10.0.0.2", since=0),
    ]
    door.guest("10.0.0.9", answered=False)
    assert door.ended(guests) == [2]
    door.guest("10.0.0.9", answered=False)
    assert door.ended(guests) == [1, 2], "each makes room for one"


def test_an_address_with_more_than_half_of_the_places_gives_up_a_long_answer(door: Door) -> None:
    guests = door.guests(*["10.0.0.1"] * 3, "10.0.0.2", since=30)
    guests[1].began -= 10
    door.guest("10.0.0.3", answered=False)
    assert door.ended(guests) == [1]


def test_a_long_answer_is_given_up_for_who_holds_half_and_for_whoever_of_those_who_wait(door: Door) -> None:
    door.connections.limit = 5
    guests = door.guests(*["10.0.0.1"] * 3, *["10.0.0.2"] * 2, since=31)
    door.guest("10.0.0.1", answered=False)
    assert door.ended(guests) == [], "who holds most would only wait for himself"
    door.guest("10.0.0.2", answered=False)
    assert door.ended(guests) == [0]


def test_no_answer_is_given_up_where_somebody_only_waits(door: Door) -> None:
    guests = [*door.guests(*["10.0.0.1"] * 3, since=31), door.guest("10.0.0.2", answered=False, since=5)]
    door.guest("10.0.0.3", answered=False)
    assert door.ended(guests) == [3]


@pytest.mark.parametrize(
    ("held", "since", "waiting"),
    [
        (["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"], 31, "10.0.0.3"),  # none has more than half
        (["10.0.0.1"] * 4, 29, "10.0.0.3"),  # it may still end
        (["10.0.0.1"] * 4, 31, "10.0.0.1"),  # only it is waiting itself
    ],
)
def test_a_long_answer_is_not_ended_for_nothing(door: Door, held: list[str], since: float, waiting: str) -> None:
    guests = door.guests(*held, since=since)
    door.guest(waiting, answered=False)
    assert door.ended(guests) == []


def test_a_guest_that_is_gone_already_is_no_error(door: Door) -> None:
    guest = door.guest(answered=False, since=31)
    guest.request.close()
    door.connections.look()
    assert time.monotonic() - guest.began > 30
