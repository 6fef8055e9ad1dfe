"""How many requests may wait at a time."""

import uvicorn
from modelops_runtime import gate
from modelops_runtime.admission import LONGEST_QUEUE, SHORTEST_QUEUE, Admission


class Counter:
    """One worker's queue at a time that stands still."""

    def __init__(self, **bounds: int) -> None:
        self.now = 10.0
        self.admission = Admission(**bounds, clock=lambda: self.now)
        self.pass_time(0, 0)

    def pass_time(self, answered: int, turned_away: int, seconds: float = 0.11) -> int:
        """Count requests, end the window; gives how many may wait from then on."""
        for _ in range(answered):
            self.admission.let_in()
            self.admission.waiting -= 1
        for _ in range(turned_away):
            self.admission.turn_away()
        self.now += seconds
        self.admission.let_in()
        self.admission.waiting -= 1
        return self.admission.most


def test_the_queue_is_long_until_many_are_turned_away() -> None:
    counter = Counter()
    assert counter.pass_time(100, 10) == LONGEST_QUEUE
    assert counter.pass_time(100, 30) == SHORTEST_QUEUE
    assert counter.pass_time(100, 200) == SHORTEST_QUEUE


def test_it_grows_again_when_overload_is_over() -> None:
    counter = Counter()
    counter.pass_time(100, 200)
    grown = [counter.pass_time(100, 5) for _ in range(5)]
    assert grown == [12, 24, 48, 64, 64]


def test_overload_of_long_ago_does_not_count() -> None:
    counter = Counter()
    counter.pass_time(100, 200)
    assert counter.pass_time(100, 200, seconds=5) == LONGEST_QUEUE


def test_bounds_hold_whatever_they_are() -> None:
    assert Counter(longest=3).pass_time(10, 20) == 3
    assert Counter(longest=64, shortest=64).pass_time(10, 20) == 64


def test_what_has_been_let_in_counts_before_it_waits() -> None:
    admission = Admission(longest=2)
    admission.coming = 1
    admission.let_in()
    assert admission.full
    admission.coming = 0
    assert not admission.full


def test_uvicorn_takes_the_gate_for_its_connections() -> None:
    gate.install()
    config = uvicorn.Config("modelops_runtime.gate:install")
    config.load()
    assert config.http_protocol_class is gate.Gate
