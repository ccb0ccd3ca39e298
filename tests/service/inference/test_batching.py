"""The micro-batcher, on an event loop and a clock that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import integers

from service.inference.batching import Batched, Batcher

MAX_BATCH = 4
SLOTS = 2
POISON = 13


class BatcherMachine(RuleBasedStateMachine):
    """Callers arrive, leave and get answers in any order. The test decides when a batch ends.

    The answer to an item is twice the item, so the test detects an answer to the wrong caller. A
    multiple of ``POISON`` makes its whole batch fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.running: list[tuple[list[int], asyncio.Future[None]]] = []
        self.started: list[int] = []
        self.cancelled: set[int] = set()
        self.callers: dict[int, asyncio.Task[Batched[int]]] = {}
        self.batcher = Batcher[int, int](
            self._run, max_batch=MAX_BATCH, slots=SLOTS, clock=lambda: self.now
        )

    async def _run(self, items: Sequence[int]) -> Sequence[int]:
        end: asyncio.Future[None] = self.loop.create_future()
        self.running.append((list(items), end))
        self.started += [item for item in items if item not in self.started]
        await end
        if any(item % POISON == 0 for item in items):
            raise ValueError(f"poison among {items}")
        return [2 * item for item in items]

    def settle(self) -> None:
        """Let the event loop do all that is possible before a batch ends."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(count=integers(1, 6))
    def arrive(self, count: int) -> None:
        """Some callers arrive."""
        for _ in range(count):
            item = len(self.callers)
            self.callers[item] = self.loop.create_task(self.batcher.submit(item))
        self.settle()

    @precondition(lambda self: self.callers)
    @rule(choice=integers(0, 10**6))
    def leave(self, choice: int) -> None:
        """A caller leaves. Its item may be waiting, running or already answered."""
        item = choice % len(self.callers)
        if self.callers[item].cancel() and item not in self.started:
            self.cancelled.add(item)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(choice=integers(0, 10), seconds=integers(1, 5))
    def end_a_batch(self, choice: int, seconds: int) -> None:
        """One of the running batches ends after some time."""
        self.now += seconds
        self.running.pop(choice % len(self.running))[1].set_result(None)
        self.settle()

    @invariant()
    def limits_hold(self) -> None:
        """Slots and batch sizes stay within their limits; no item waits while a slot is free."""
        assert len(self.running) <= SLOTS
        assert all(1 <= len(items) <= MAX_BATCH for items, _ in self.running)
        if len(self.running) < SLOTS:
            waiting = set(self.callers) - set(self.started) - self.cancelled
            assert not waiting

    @invariant()
    def oldest_start_first(self) -> None:
        """Items start in the order of their arrival; cancelled items never start."""
        assert self.started == sorted(self.started)
        assert not self.cancelled & set(self.started)

    def teardown(self) -> None:
        """Every caller that stayed gets its own answer or its own error."""
        while self.running:
            self.end_a_batch(0, 1)
        for item, caller in self.callers.items():
            assert caller.done()
            if caller.cancelled():
                continue
            if item % POISON == 0:
                assert isinstance(caller.exception(), ValueError)
            else:
                batched = caller.result()
                assert batched.answer == 2 * item
                assert 1 <= batched.batch_size <= MAX_BATCH
                assert batched.queue_seconds >= 0
                assert batched.run_seconds >= 1
        assert self.batcher.depth == 0
        self.loop.close()


TestBatcher = BatcherMachine.TestCase
# Without the phase "shrink": it would search a minute for a shorter example of a failure.
TestBatcher.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def test_single_item_runs_at_once() -> None:
    """While a slot is free, an item does not wait for others: it runs in a batch of one."""

    async def run(items: Sequence[str]) -> Sequence[str]:
        return [item.upper() for item in items]

    async def submit() -> Batched[str]:
        return await Batcher[str, str](run, max_batch=8, clock=lambda: 1.0).submit("item")

    assert asyncio.run(submit()) == Batched("ITEM", batch_size=1, queue_seconds=0, run_seconds=0)


def test_wrong_number_of_answers_is_an_error() -> None:
    """If a batch returns too few answers, the caller gets an error and does not wait forever."""

    async def run(items: Sequence[str]) -> Sequence[str]:
        return items[1:]

    with pytest.raises(ValueError, match="shorter"):
        asyncio.run(asyncio.wait_for(Batcher[str, str](run, max_batch=8).submit("item"), 5))


def test_waiting_is_not_running() -> None:
    """The time in the queue is no part of the time of the run, and the oldest run has an age."""
    now = [0.0]
    ages = []

    async def run(items: Sequence[str]) -> Sequence[str]:
        now[0] += 2
        ages.append(batcher.longest_run_seconds)
        return list(items)

    batcher = Batcher[str, str](run, max_batch=1, clock=lambda: now[0])

    async def submit() -> Batched[str]:
        _, second = await asyncio.gather(batcher.submit("a"), batcher.submit("b"))
        return second

    second = asyncio.run(submit())
    assert (second.queue_seconds, second.run_seconds) == (2, 2)
    assert ages == [2, 2]
    assert batcher.longest_run_seconds == 0


def test_repeated_items_let_other_work_run() -> None:
    """If a batch fails, the event loop has a turn after each item that runs again."""
    turns: list[None] = []
    runs: list[tuple[int, int]] = []

    async def run(items: Sequence[str]) -> Sequence[str]:
        runs.append((len(items), len(turns)))
        raise ValueError

    async def count_turns() -> None:
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    async def submit() -> None:
        counting = asyncio.create_task(count_turns())
        batcher = Batcher[str, str](run, max_batch=8)
        failed = await asyncio.gather(*(batcher.submit("x") for _ in "abc"), return_exceptions=True)
        assert all(isinstance(each, ValueError) for each in failed)
        counting.cancel()

    asyncio.run(submit())
    sizes, seen = zip(*runs, strict=True)
    assert sizes == (3, 1, 1, 1)
    assert len(set(seen[1:])) == 3
