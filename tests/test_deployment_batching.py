"""The batcher: everybody gets their own answer, or a reason."""

import asyncio
import threading
import time

import numpy as np
import pytest

from tenfold.deployment.batching import Batcher, FullError, StoppedError


def pictures(*values):
    return np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in values])


def submit(batcher, value):
    [future] = batcher.submit(pictures(value))
    return future


def mean(pixels):
    return pixels.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]


def test_each_gets_its_own():
    batcher = Batcher(mean)
    futures = [submit(batcher, value) for value in range(200)]
    assert [float(future.result(10)[0]) for future in futures] == list(range(200))
    batcher.stop(seconds=5)


def test_those_that_come_together_are_computed_together():
    sizes = []
    batcher = Batcher(
        mean, patience_seconds=0.2, most_together=8, seen=lambda n, s: sizes.append(n)
    )
    futures = [submit(batcher, value) for value in range(20)]
    for future in futures:
        future.result(10)
    assert sum(sizes) == 20
    assert max(sizes) == 8
    batcher.stop(seconds=5)


def test_a_full_queue_refuses():
    gate = threading.Event()

    def slow(pixels):
        gate.wait(10)
        return mean(pixels)

    batcher = Batcher(slow, most_waiting=3, most_together=1)
    futures = [submit(batcher, 0)]
    time.sleep(0.1)
    futures += [submit(batcher, value) for value in (1, 2, 3)]
    with pytest.raises(FullError):
        submit(batcher, 4)
    gate.set()
    assert [float(future.result(10)[0]) for future in futures] == [0, 1, 2, 3]
    batcher.stop(seconds=5)


def test_row_44_one_that_fails_fails_alone():
    def touchy(pixels):
        if (pixels == 13).any():
            raise ValueError("13")
        return mean(pixels)

    batcher = Batcher(touchy, patience_seconds=0.1)
    futures = {value: submit(batcher, value) for value in (12, 13, 14)}
    assert float(futures[12].result(10)[0]) == 12
    assert float(futures[14].result(10)[0]) == 14
    with pytest.raises(ValueError, match="13"):
        futures[13].result(10)
    assert batcher.is_alive
    batcher.stop(seconds=5)


def test_row_44_a_client_that_has_gone_costs_nothing():
    sizes = []
    batcher = Batcher(mean, patience_seconds=0.2, seen=lambda n, s: sizes.append(n))
    first, second = submit(batcher, 1), submit(batcher, 2)
    first.cancel()
    assert float(second.result(10)[0]) == 2
    assert sizes == [1]
    batcher.stop(seconds=5)


def test_row_45_the_death_of_the_thread_is_told():
    dead = threading.Event()

    def deadly(pixels):
        raise SystemExit

    batcher = Batcher(deadly, on_death=dead.set)
    future = submit(batcher, 1)
    assert dead.wait(10)
    with pytest.raises(StoppedError):
        future.result(10)
    with pytest.raises(StoppedError):
        submit(batcher, 2)
    assert not batcher.is_alive


def test_stopping_answers_what_waits():
    batcher = Batcher(mean)
    futures = [submit(batcher, value) for value in range(50)]
    batcher.stop(seconds=10)
    assert [float(future.result(0)[0]) for future in futures] == list(range(50))
    with pytest.raises(StoppedError):
        submit(batcher, 0)


def test_many_pictures_are_taken_all_or_none():
    gate = threading.Event()

    def slow(pixels):
        gate.wait(10)
        return mean(pixels)

    batcher = Batcher(slow, most_waiting=4, most_together=1)
    first = submit(batcher, 0)
    time.sleep(0.1)
    futures = batcher.submit(pictures(1, 2, 3))
    with pytest.raises(FullError):
        batcher.submit(pictures(4, 5))
    assert batcher.num_waiting == 3
    gate.set()
    assert [float(future.result(10)[0]) for future in (first, *futures)] == [0, 1, 2, 3]
    batcher.stop(seconds=5)


def test_who_stops_waiting_takes_the_rest_back():
    gate, sizes = threading.Event(), []

    def slow(pixels):
        gate.wait(10)
        return mean(pixels)

    batcher = Batcher(slow, most_together=2, seen=lambda n, s: sizes.append(n))

    async def impatient():
        await asyncio.wait_for(batcher.answer(pictures(*range(8))), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    gate.set()
    assert float(submit(batcher, 9).result(10)[0]) == 9
    assert sum(sizes) <= 3  # A batch that had begun, and the new one.
    batcher.stop(seconds=5)


def test_other_work_is_done_on_the_same_thread():
    batcher = Batcher(mean)

    async def ask():
        found, name = await asyncio.gather(
            batcher.answer(pictures(1, 2)), batcher.call(lambda: threading.current_thread().name)
        )
        return found.ravel().tolist(), name

    assert asyncio.run(ask()) == ([1.0, 2.0], "inference")
    batcher.stop(seconds=5)


def test_a_thread_that_hangs_does_not_hold_the_end_up():
    gate = threading.Event()

    def hanging(pixels):
        gate.wait(20)
        return mean(pixels)

    batcher = Batcher(hanging, most_waiting=2)
    submit(batcher, 0)
    started = time.monotonic()
    batcher.stop(seconds=0.3)
    assert time.monotonic() - started < 15  # And not the 20 that it hangs.
    gate.set()
