"""A task travels between processes; an entry starts with nothing done."""

from __future__ import annotations

import pickle

from serve_app.engine.task import Entry, Phase
from tests.unit.engine.entries import task


def test_a_task_crosses_process_borders_whole():
    assert pickle.loads(pickle.dumps(task(3))) == task(3)


def test_an_entry_waits_with_nothing_done():
    fresh = Entry(0, task(), steps=2)
    assert (fresh.phase, fresh.steps_done) == (Phase.WAITING, 0)


def test_only_tiles_of_one_size_share_a_bucket():
    here, there = Entry(0, task(0), steps=2), Entry(1, task(5, steps=9), steps=9)
    assert here.bucket == there.bucket
    assert here.bucket != Entry(2, task(side_px=16), steps=2).bucket
