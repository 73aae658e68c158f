"""Decides, before every turn of the engine, what runs next. Touches no tensor, no thread and no clock.

Each class of priority has a lane with as many places as a batch has rows. Between two turns:

1. The lane is chosen: the one that has had less of the accelerator's time than its share. So interactive tiles
   stop batch tiles between two steps, and batch tiles still get `batch_share`.
2. Within it, what is finished is decoded, since that answers a caller and frees a place; then waiting tiles
   join while places are free, tenants and their requests in turn; then those that run make a step. Between two
   steps, decoding and joining take about a step's time at most.
3. The step's batch size is a static one, the smallest that is about the cheapest for each tile by the measured
   cost table; those who joined first run. So where company gains nothing, tiles end one after the other. Tiles
   of the other lane ride along where that makes the step hardly longer.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.contracts import Priority
from serve_app.engine.task import Entry, Kind, Phase
from serve_app.settings import EngineSettings

Key = TypeVar("Key", bound=Hashable)

_ABOUT = 1.05  # a gain below 5 % is not worth that tiles wait for each other


@dataclass(frozen=True, slots=True)
class Work:
    """One turn of the engine: a kind of work, the entries that share it, and the batch size that it runs at."""

    kind: Kind
    entries: tuple[Entry, ...]
    size: int


def static_sizes(most: int, exact: bool = False) -> tuple[int, ...]:
    """The batch sizes that are warmed and run: 1, 2, 4 ... `most`; with `exact` only `most`."""
    if exact:
        return (most,)
    return (*(2**n for n in range(most.bit_length()) if 2**n < most), most)


class CostTable:
    """Seconds of each kind of work at each static batch size, as measured.

    Args:
        seconds: What was measured. A size that was not is taken as proportional to the nearest below.
    """

    def __init__(self, seconds: Mapping[tuple[Kind, int], float] | None = None) -> None:
        self._seconds = dict(seconds or {})

    def seconds(self, kind: Kind, size: int) -> float:
        """What a batch of this size takes."""
        known = [n for of, n in self._seconds if of is kind]
        if not known:
            return 1.0 if kind is Kind.STEP else 0.25  # nothing measured: in units of a step
        near = max((n for n in known if n <= size), default=min(known))
        return self._seconds[kind, near] * size / near

    def cheapest(self, kind: Kind, sizes: Sequence[int], rows: int) -> int:
        """The smallest size at which each of so many rows costs about as little as it can."""
        each = {size: self.seconds(kind, size) / min(size, rows) for size in sizes}
        return next(size for size in sizes if each[size] <= _ABOUT * min(each.values()))


class Shares(Generic[Key]):
    """Who is due: of those who have something to run, the one who has had least.

    Newcomers start level with what everybody had had before the last turn: they go first, being away earns
    no more credit than that, and an endless stream of them starves nobody.
    Source: weighted fair queueing (Demers, Keshav and Shenker, 1989), served by start tags.
    """

    def __init__(self) -> None:
        self._had: dict[Key, float] = {}
        self._present: dict[Key, None] = {}
        self._level = 0.0
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._present)

    def enter(self, key: Key) -> None:
        """A key has something to run; the accounts of those who are gone and not ahead are closed."""
        self._present[key] = None
        kept = {k: had for k, had in self._had.items() if k in self._present or had > self._level}
        self._had = kept | {key: max(kept.get(key, 0), self._level)}

    def leave(self, key: Key) -> None:
        """A key has nothing to run."""
        self._present.pop(key, None)

    def due(self) -> Key:
        """The key that is due, the first of equals."""
        return min(self._present, key=self._had.__getitem__)

    def charge(self, key: Key, cost: float) -> None:
        """A present key gets something, in its turn or along with another."""
        self._had[key] += cost
        self._level += self._last
        self._last = cost / len(self._present)


class Lane:
    """One class of priority: those who wait, fairly, and those who hold a place.

    Args:
        places: Most entries that run together.
        most_waiting: Most that wait.
    """

    def __init__(self, places: int, most_waiting: int) -> None:
        self._places = places
        self._most_waiting = most_waiting
        self._waiting: dict[str, dict[str, dict[int, Entry]]] = {}  # tenant, request, entry id
        self._tenants = Shares[str]()
        self._requests: dict[str, Shares[str]] = {}
        self._inside: dict[int, Entry] = {}
        self.waiting = 0
        self.vae_s = 0.0  # spent on the autoencoder since the last step

    def __len__(self) -> int:
        return self.waiting + len(self._inside)

    def add(self, entry: Entry) -> Entry | None:
        """Lets an entry wait. If too many do then, the newest one of whoever has most of them is too much."""
        tenant, request = entry.task.tenant, entry.task.request_id
        if tenant not in self._waiting:
            self._tenants.enter(tenant)
            self._waiting[tenant] = {}
        if request not in self._waiting[tenant]:
            self._requests.setdefault(tenant, Shares()).enter(request)
            self._waiting[tenant][request] = {}
        self._waiting[tenant][request][entry.id] = entry
        self.waiting += 1
        if self.waiting <= self._most_waiting:
            return None
        tenants = reversed(self._waiting.values())  # of equals, the one that came last
        requests = max(tenants, key=lambda found: sum(map(len, found.values())))
        entries = max(reversed(requests.values()), key=len)
        return next(reversed(entries.values()))

    def remove(self, entry: Entry) -> None:
        """Forgets an entry, wherever it stands."""
        if self._inside.pop(entry.id, None) is not None:
            return
        tenant, request = entry.task.tenant, entry.task.request_id
        requests = self._waiting[tenant]
        del requests[request][entry.id]
        self.waiting -= 1
        if not requests[request]:
            del requests[request]
            self._requests[tenant].leave(request)
        if not requests:
            del self._waiting[tenant], self._requests[tenant]
            self._tenants.leave(tenant)

    def standing(self, phase: Phase) -> list[Entry]:
        """Those with a place who are in a phase, who joined first first."""
        return [entry for entry in self._inside.values() if entry.phase is phase]

    def join(self, most: int) -> list[Entry]:
        """Gives places to those who are due, at most so many, all of one shape."""
        joined: list[Entry] = []
        most = min(most, self._places - len(self.standing(Phase.RUNNING)))
        while self._waiting and len(joined) < most:
            tenant = self._tenants.due()
            request = self._requests[tenant].due()
            entry = next(iter(self._waiting[tenant][request].values()))
            if joined and entry.bucket.shape != joined[0].bucket.shape:
                break
            self._tenants.charge(tenant, entry.steps + 1)
            self._requests[tenant].charge(request, entry.steps + 1)
            self.remove(entry)
            self._inside[entry.id] = entry
            entry.phase = Phase.RUNNING
            joined.append(entry)
        return joined


class Scheduler:
    """Keeps the entries and picks the next work. Each work is settled before the next is asked for.

    Args:
        settings: Batch sizes, queue and shares.

    Attributes:
        costs: Decides between batch sizes; the engine sets it once they are measured.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.costs = CostTable()
        self._sizes = static_sizes(settings.max_batch, settings.exact)
        self._vae_sizes = static_sizes(settings.vae_batch, settings.exact)
        self._slowdown = settings.interactive_slowdown
        self._weights = {
            Priority.INTERACTIVE: 1 - settings.batch_share,
            Priority.BATCH: settings.batch_share,
        }
        self._lanes = {of: Lane(settings.max_batch, settings.max_waiting) for of in Priority}
        self._shares = Shares[Priority]()
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def waiting(self, priority: Priority) -> int:
        """How many entries of a class wait for a place."""
        return self._lanes[priority].waiting

    def add(self, entry: Entry) -> Entry | None:
        """Accepts an entry.

        Returns:
            Who must go because too many of a class wait, forgotten already: never one of few for many.
        """
        priority = entry.task.priority
        if not self._lanes[priority]:
            self._shares.enter(priority)
        self._entries[entry.id] = entry
        if surplus := self._lanes[priority].add(entry):
            self.drop([surplus.id])
        return surplus

    def drop(self, ids: Iterable[int]) -> None:
        """Forgets entries, wherever they stand; unknown ones are ignored."""
        for entry_id in ids:
            if entry := self._entries.pop(entry_id, None):
                priority = entry.task.priority
                self._lanes[priority].remove(entry)
                if not self._lanes[priority]:
                    self._shares.leave(priority)

    def late(self, now: float) -> list[Entry]:
        """The entries whose deadline has passed."""
        return [e for e in self._entries.values() if e.deadline is not None and e.deadline <= now]

    def next(self) -> Work | None:
        """The next work, or None where nothing is to be done."""
        if not self._shares:
            return None
        lane = self._lanes[self._shares.due()]
        step = self._step(lane)
        if step is None or lane.vae_s < self._step_s(step.size):
            most = self._vae_sizes[-1]
            if finishing := lane.standing(Phase.FINISHING):
                shape = finishing[0].bucket.shape
                alike = [entry for entry in finishing if entry.bucket.shape == shape]
                return self._work(Kind.DECODE, alike[:most])
            if joined := lane.join(most):
                return self._work(Kind.ENCODE, joined)
        return step

    def alone(self, work: Work, entry: Entry) -> Work:
        """The same work for one of its entries, at the smallest size."""
        return self._work(work.kind, [entry])

    def settle(self, work: Work, ended: Collection[int]) -> None:
        """Notes that a work was done: moves its entries on and forgets those that have ended."""
        seconds = self.costs.seconds(work.kind, work.size)
        for entry in work.entries:
            priority = entry.task.priority
            each_s = seconds / len(work.entries)
            self._shares.charge(priority, each_s / self._weights[priority])
            lane = self._lanes[priority]
            lane.vae_s = 0 if work.kind is Kind.STEP else lane.vae_s + each_s
            entry.steps_done += work.kind is Kind.STEP
            entry.phase = Phase.RUNNING if entry.steps_done < entry.steps else Phase.FINISHING
        self.drop(one.id for one in work.entries if work.kind is Kind.DECODE or one.id in ended)

    def _step(self, lane: Lane) -> Work | None:
        """A step of those who joined first and share a bucket, at the size that is cheapest for each."""
        if not (running := lane.standing(Phase.RUNNING)):
            return None
        bucket = running[0].bucket
        rows = [entry for entry in running if entry.bucket == bucket]
        size = self.costs.cheapest(Kind.STEP, self._sizes, len(rows))
        rows = rows[:size]
        most_s = self._slowdown * self._step_s(size)
        wide = max(n for n in self._sizes if n == size or self._step_s(n) <= most_s)
        for other in self._lanes.values():
            if other is not lane:
                alike = [e for e in other.standing(Phase.RUNNING) if e.bucket == bucket]
                rows += alike[: wide - len(rows)]
        return self._work(Kind.STEP, rows)

    def _step_s(self, size: int) -> float:
        return self.costs.seconds(Kind.STEP, size)

    def _work(self, kind: Kind, entries: Sequence[Entry]) -> Work:
        sizes = self._sizes if kind is Kind.STEP else self._vae_sizes
        return Work(kind, tuple(entries), _fit(sizes, len(entries)))


def _fit(sizes: Sequence[int], rows: int) -> int:
    return next(size for size in sizes if size >= rows)
