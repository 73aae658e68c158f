"""Sends the corpus to a real application and writes what became of it: `python -m tests.corpus`."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import serve

from tests.corpus import LIMITS, corpus
from tests.corpus.visit import AT_ONCE, Memory, Outcome, hostile_application, replicas, send_all

PAGE = Path(__file__).parents[2] / "docs/measurements/hostile.md"

_HEAD = """# Hostile and odd files

What becomes of the files of [tests/corpus](../../tests/corpus/README.md) when they are sent, {at_once} at
once, through HTTP to the whole graph with denoisers that give each tile back. Written by
`python -m tests.corpus`; the same visit is a test (`tests/integration/test_corpus.py`). Limits: {pixels} MP,
{upload} MiB an upload; {memory} MiB and {time:g} s for the decoder's process.

| class | files | 200 | 413 | 415 | 422 | else | not as stated | median s | longest s |
|---|---|---|---|---|---|---|---|---|---|
"""


@contextmanager
def _cluster() -> Iterator[int]:
    """A Ray of its own with Serve on a free port of the loopback."""
    folder = tempfile.mkdtemp(prefix="tessera-")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    quiet = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
    ray.init(address="local", num_cpus=4, _temp_dir=folder, **quiet)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    statuses = Counter(outcome.status for outcome in outcomes)
    stated = [statuses.pop(status, 0) for status in (200, 413, 415, 422)]
    faults = sum(outcome.fault is not None for outcome in outcomes)
    times = sorted(outcome.took_s for outcome in outcomes)
    counts = [len(outcomes), *stated, sum(statuses.values()), faults]
    cells = [name, *map(str, counts), f"{times[len(times) // 2]:.2f}", f"{times[-1]:.1f}"]
    return f"| {' | '.join(cells)} |\n"


def page(outcomes: Sequence[Outcome], restarted: int, memory: Memory) -> str:
    """The page, in Markdown."""
    text = _HEAD.format(
        at_once=AT_ONCE,
        pixels=LIMITS.source_pixels // 10**6,
        upload=LIMITS.upload_bytes // 2**20,
        memory=LIMITS.decode_memory_bytes // 2**20,
        time=LIMITS.decode_timeout_s,
    )
    for kind in dict.fromkeys(outcome.case.kind for outcome in outcomes):
        text += _row(kind, [outcome for outcome in outcomes if outcome.case.kind == kind])
    text += _row("**all**", outcomes)
    above = (memory.peak_bytes - memory.idle_bytes) / 2**20
    text += f"\nReplicas restarted: {restarted}. Memory of all their processes, decoders included: "
    text += f"{memory.idle_bytes / 2**20:.0f} MiB idle, at most {above:.0f} MiB more.\n"
    faults = [outcome.fault for outcome in outcomes if outcome.fault is not None]
    if faults:
        text += "\nNot as stated:\n\n" + "".join(f"- {fault}\n" for fault in faults)
    return text


def main() -> None:
    """Visits once and writes the page."""
    with _cluster() as port, hostile_application(port) as url:
        send_all(url, [case for case in corpus() if case.kind == "mislabelled"])
        before, memory = replicas(), Memory()
        with memory.watched():
            outcomes = send_all(url, corpus())
        restarted = len(before.keys() - replicas().keys())
    PAGE.write_text(page(outcomes, restarted, memory))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
