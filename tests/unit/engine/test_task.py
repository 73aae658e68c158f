"""A task travels between processes; an entry starts with nothing done."""

from __future__ import annotations

import pickle

from serve_app.engine.task import Phase
from tests.unit.engine.entries import entry, task


def test_a_task_crosses_process_borders_whole():
    assert pickle.loads(pickle.dumps(task(3))) == task(3)


def test_an_entry_waits_with_nothing_done():
    fresh = entry(0)
    assert (fresh.phase, fresh.steps_done) == (Phase.WAITING, 0)


def test_only_tiles_of_one_size_and_one_adapter_share_a_bucket():
    assert entry(0).bucket == entry(1, steps=9).bucket
    assert entry(0).bucket != entry(1, side_px=16).bucket
    assert entry(0).bucket != entry(1, lora="turbo").bucket
    assert entry(0).bucket.shape == entry(1, lora="turbo").bucket.shape
