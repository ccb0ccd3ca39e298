"""The micro-batcher: items that arrive during a batch form the next one. Knows no images."""

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
    """The answer to one item, and how its batch went."""

    answer: Result
    batch_size: int
    queue_seconds: float
    run_seconds: float


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    since: float
    answer: asyncio.Future[Batched[Result]]


class Batcher(Generic[Item, Result]):
    """Passes items to ``run``, oldest first, in batches of at most ``max_batch``.

    At most ``slots`` batches run side by side. An item that arrives while a slot is free runs at
    once: no item waits for others to fill its batch. An item whose caller is cancelled while it
    waits never runs. The items of a failed batch run again one by one, so only those that fail
    alone fail.
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
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._running: set[asyncio.Task[None]] = set()  # asyncio keeps weak references only

    @property
    def depth(self) -> int:
        """Number of items that wait."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Batched[Result]:
        """Return the answer to ``item``.

        Raises:
            Exception: Whatever ``run`` raised for this item.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Item, Result](item, self._clock(), loop.create_future())
        self._waiting.append(waiting)
        # Not at once: items that have already arrived join the same batch.
        loop.call_soon(self._start)
        return await waiting.answer

    def _start(self) -> None:
        while self._free_slots and (batch := self._gather()):
            self._free_slots -= 1
            task = asyncio.create_task(self._work(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _gather(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _work(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            await self._answer(batch)
        finally:
            self._free_slots += 1
            self._start()

    async def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        started = self._clock()
        try:
            answers = await self._run([waiting.item for waiting in batch])
            answered = list(zip(batch, answers, strict=True))
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._answer([waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        ended = self._clock()
        for waiting, answer in answered:
            if not waiting.answer.done():
                waited = started - waiting.since
                waiting.answer.set_result(Batched(answer, len(batch), waited, ended - started))
