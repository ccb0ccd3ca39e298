"""The micro-batcher: items that arrive while a batch runs form the next batch.

Works with items of any type. Knows nothing about images.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batched(Generic[Result]):
    """The answer to one item, with the size and the times of its batch."""

    answer: Result
    batch_size: int
    queue_seconds: float
    run_seconds: float


@dataclass(frozen=True)
class _WaitingItem(Generic[Item, Result]):
    item: Item
    since: float
    answer: asyncio.Future[Batched[Result]]


class Batcher(Generic[Item, Result]):
    """Passes items to ``run``, oldest first, in batches of at most ``max_batch``.

    At most ``slots`` batches run side by side. An item that arrives while a slot is free runs at
    once: it does not wait until its batch is full. A waiting item whose caller is cancelled never
    runs. If a batch fails, its items run again one by one, so a bad item does not fail the others.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_batch: int,
        slots: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._free_slots = slots
        self._clock = clock
        self._waiting: deque[_WaitingItem[Item, Result]] = deque()
        self._running_since: dict[object, float] = {}
        self._running: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references

    @property
    def depth(self) -> int:
        """Number of waiting items."""
        return len(self._waiting)

    @property
    def longest_run_seconds(self) -> float:
        """For how long the oldest of the batches that run now has been running."""
        return self._clock() - min(self._running_since.values(), default=self._clock())

    async def submit(self, item: Item) -> Batched[Result]:
        """Return the answer to ``item``.

        Raises:
            Exception: The error that ``run`` raised for this item.
        """
        loop = asyncio.get_running_loop()
        entry = _WaitingItem[Item, Result](item, self._clock(), loop.create_future())
        self._waiting.append(entry)
        # Do not start at once: callers that the event loop runs before _start join the same batch.
        loop.call_soon(self._start)
        return await entry.answer

    def _start(self) -> None:
        while self._free_slots and (batch := self._gather()):
            self._free_slots -= 1
            task = asyncio.create_task(self._work(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _gather(self) -> list[_WaitingItem[Item, Result]]:
        batch: list[_WaitingItem[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            entry = self._waiting.popleft()
            if not entry.answer.done():
                batch.append(entry)
        return batch

    async def _work(self, batch: list[_WaitingItem[Item, Result]]) -> None:
        try:
            await self._answer(batch)
        finally:
            self._free_slots += 1
            self._start()

    async def _answer(self, batch: list[_WaitingItem[Item, Result]]) -> None:
        started = self._clock()
        try:
            answers = await self._run_noted([entry.item for entry in batch], started)
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._answer([entry])
                    await asyncio.sleep(0)  # ``run`` may have blocked the event loop
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        ended = self._clock()
        for entry, answer in answered:
            if not entry.answer.done():
                waited = started - entry.since
                entry.answer.set_result(Batched(answer, len(batch), waited, ended - started))

    async def _run_noted(self, items: Sequence[Item], started: float) -> Sequence[Result]:
        token = object()
        self._running_since[token] = started
        try:
            return await self._run(items)
        finally:
            del self._running_since[token]
