"""Own the micro-batcher: items that wait while the last batch runs go into the next together. Knows no images."""

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
    """The answer to one item, and how it came about."""

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
    """Hands items to ``run``, oldest first, at most ``max_batch`` at a time and ``slots`` batches side by side.

    An item that comes while a slot is free is run at once, alone: nothing is ever waited for but a slot.
    An item whose caller was cancelled while it waited is never run. When a batch of several fails, its items are run
    again one by one, so that only those that fail alone fail.
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
        self._running: set[asyncio.Task[None]] = (
            set()
        )  # the event loop alone would let them be collected

    @property
    def depth(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Batched[Result]:
        """Return the answer to ``item``.

        Raises:
            Exception: What ``run`` raised for this item.
        """
        waiting = _Waiting[Item, Result](
            item, self._clock(), asyncio.get_running_loop().create_future()
        )
        self._waiting.append(waiting)
        # Not at once: what else has arrived by now goes into the same batch.
        asyncio.get_running_loop().call_soon(self._start)
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
                waiting.answer.set_result(
                    Batched(answer, len(batch), started - waiting.since, ended - started)
                )
