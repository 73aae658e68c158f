"""What the residual cache promises at the shipped threshold: much less work, nearly the same pixels.

The seconds and the other thresholds are in docs/measurements/cache.md.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.cache import AT_STEPS, Bench, crops, distance

LEAST_PSNR_DB = 45  # measured 52; the default's own distance from the original is about 30
LEAST_RATIO = 1.5
CROPS = 2  # of the four that are measured; each takes ten seconds


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(threads=len(os.sched_getaffinity(0)))


def test_the_shipped_threshold_keeps_its_distance(bench: Bench) -> None:
    shipped = bench.info.residual_cache
    assert shipped is not None
    for seed, crop in list(enumerate(crops(bench.info.tile_px)))[:CROPS]:
        plain, _, all_steps = bench.tile(crop, seed, AT_STEPS, None)
        cached, _, computed = bench.tile(crop, seed, AT_STEPS, shipped.threshold)
        assert all_steps == AT_STEPS
        assert AT_STEPS / computed >= LEAST_RATIO
        psnr_db, _ = distance(cached, plain)
        assert LEAST_PSNR_DB <= psnr_db < 90  # not the same: the steps were skipped


def test_few_steps_are_all_computed(bench: Bench) -> None:
    """They lie too far apart for one to stand in for another."""
    shipped = bench.info.residual_cache
    assert shipped is not None
    crop = next(crops(bench.info.tile_px))
    assert bench.tile(crop, 0, 4, shipped.threshold)[2] == 4
