"""The batcher: everybody gets their own logits, or a reason."""

import asyncio
import threading

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from tenfold.deployment import batching
from tenfold.deployment.batching import STOPPED, Batcher


def images(*values):
    return np.stack([np.full((2, 2, 3), value, dtype=np.uint8) for value in values])


def mean(pixels):
    return pixels.mean(axis=(1, 2, 3), dtype=np.float32)[:, None]


class Gate:
    """Computes the mean once it is opened, and knows in what batches."""

    def __init__(self):
        self.opened, self.sizes = threading.Event(), []

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        assert self.opened.wait(10)
        return mean(pixels)


def with_batcher(use, compute=mean):
    """What `use(batcher)` comes to in an event loop."""

    async def main():
        batcher = Batcher(compute)
        return await asyncio.wait_for(use(batcher), 20)

    return asyncio.run(main())


async def asked(batcher, *values):
    """Tasks that wait for the logits of one image each."""
    tasks = [asyncio.create_task(batcher.logits(images(value))) for value in values]
    await asyncio.sleep(0.05)
    return tasks


def test_each_gets_its_own_and_those_that_come_together_are_computed_together(monkeypatch):
    monkeypatch.setattr(batching, "MOST_TOGETHER", 8)
    gate = Gate()

    async def use(batcher):
        tasks = await asked(batcher, *range(200))
        gate.opened.set()
        return [float(each[0, 0]) for each in await asyncio.gather(*tasks)]

    assert with_batcher(use, gate) == list(range(200))
    assert (sum(gate.sizes), max(gate.sizes)) == (200, 8)


def test_a_full_queue_refuses_all_of_a_request_or_none(monkeypatch):
    monkeypatch.setattr(batching, "MOST_WAITING", 4)
    gate = Gate()

    async def use(batcher):
        tasks = await asked(batcher, 0)  # Which is being computed.
        tasks.append(asyncio.create_task(batcher.logits(images(1, 2, 3))))
        await asyncio.sleep(0.05)
        with pytest.raises(HTTPException, match="Too many images wait"):
            await batcher.logits(images(4, 5))
        assert len(batcher.waiting) == 3
        gate.opened.set()
        return np.concatenate(await asyncio.gather(*tasks)).ravel().tolist()

    assert with_batcher(use, gate) == [0, 1, 2, 3]


def test_row_44_one_that_fails_fails_alone():
    def touchy(pixels):
        if (pixels == 13).any():
            raise ValueError("13")
        return mean(pixels)

    async def use(batcher):
        tasks = await asked(batcher, 12, 13, 14)
        assert batcher.is_alive
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = with_batcher(use, touchy)
    assert (float(first[0, 0]), float(third[0, 0])) == (12, 14)
    assert isinstance(second, ValueError)


def test_row_44_who_has_gone_or_stops_waiting_costs_nothing(monkeypatch):
    monkeypatch.setattr(batching, "MOST_TOGETHER", 2)
    gate = Gate()

    async def use(batcher):
        [first, second] = await asked(batcher, 0, 1)
        second.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.logits(images(*range(8))), 0.2)
        gate.opened.set()
        await first
        return await batcher.logits(images(9))

    assert float(with_batcher(use, gate)[0, 0]) == 9
    assert sum(gate.sizes) <= 3  # A batch that had begun, and the new one.


def test_row_45_the_death_of_the_thread_is_told():
    dead = []

    def deadly(pixels):
        raise SystemExit

    async def use(batcher):
        batcher.on_death = lambda: dead.append(True)
        found = await asyncio.gather(*await asked(batcher, 1, 2), return_exceptions=True)
        with pytest.raises(HTTPException, match="The model has stopped"):
            await batcher.logits(images(3))
        assert not batcher.is_alive
        return found

    found = with_batcher(use, deadly)
    assert [each.detail for each in found] == [f"{STOPPED}; try again"] * 2
    assert dead == [True]
