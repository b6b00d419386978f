"""Work divided among processes comes back in order, and a process that dies says so and leaves none behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ladlib.errors import UserError
from ladlib.processes import divided


def places() -> object:
    """Where a thing was made, after a while that is shorter for later ones."""
    return lambda item: (time.sleep(0.3 if item == 0 else 0), (item, os.getpid()))[1]


def refusing() -> object:
    return lambda item: _refuse(item)


def _refuse(item: int) -> int:
    if item == 2:
        raise UserError(f"Item {item} is bad.", "Mend it.")
    return item


def dying() -> object:
    return lambda item: os.kill(os.getpid(), signal.SIGKILL) if item == 2 else item


def nothing(item: int) -> None:
    """To look ahead at ``item``, and find nothing to do."""


def test_one_process_does_the_work_where_it_was_asked():
    assert list(divided(places, range(3), count=1, ahead=nothing)) == [(item, os.getpid()) for item in range(3)]


def test_the_next_item_is_looked_at_meanwhile_and_what_is_wrong_with_it_told_in_its_turn():
    seen = [threading.Event() for _ in range(3)]

    def ahead(item: int) -> None:
        seen[item].set()
        raise ValueError(f"Item {item} is bad.")

    def work(item: int) -> bool:
        return item == 2 or seen[item + 1].wait(timeout=10)

    assert list(divided(lambda: work, range(3), count=1, ahead=ahead)) == [True, True, True]
    assert not seen[0].is_set()


def test_nothing_to_do_starts_nothing():
    assert list(divided(refusing, [], count=4, ahead=nothing)) == []


@pytest.mark.slow
def test_several_processes_give_what_one_gives_in_the_same_order():
    found = list(divided(places, range(6), count=2, ahead=nothing))
    assert [item for item, _ in found] == list(range(6))
    assert len({process for _, process in found}) == 2 and os.getpid() not in {process for _, process in found}


@pytest.mark.slow
def test_an_error_in_a_process_is_the_callers_with_its_mend():
    found = divided(refusing, range(4), count=2, ahead=nothing)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(UserError, match="Item 2 is bad. Mend it."):
        next(found)


@pytest.mark.slow
def test_a_killed_process_is_told_in_one_line():
    with pytest.raises(UserError, match="One of 2 processes .* Lower parallel.processes"):
        list(divided(dying, range(4), count=2, ahead=nothing))


@pytest.mark.slow
def test_processes_end_with_the_one_that_asked():
    code = """
import os, sys, time
sys.path[:0] = sys.argv[1:]
from test_processes import nothing, places
from ladlib.processes import divided
if __name__ == "__main__":
    for _, process in divided(places, range(1000), count=2, ahead=nothing):
        print(process, flush=True)
        time.sleep(0.05)
"""
    script = [sys.executable, "-c", code, os.path.dirname(__file__)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as started:
        workers = {int(started.stdout.readline()) for _ in range(4)}
        started.kill()
    until = time.monotonic() + 20
    while (left := {one for one in workers if alive(one)}) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers and not left


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
