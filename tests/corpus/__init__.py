"""Files that strangers send: broken, lying, huge, mislabelled, and odd but good; made when they are needed.

`corpus()` gives every file with the outcome that it must have. See README.md. It refuses to know decoders.
"""

from __future__ import annotations

from functools import cache

from tests.corpus import bombs, cuts, labels, layouts, lies, metadata, moving, refused, shapes
from tests.corpus.case import LIMITS, Case

__all__ = ["LIMITS", "Case", "corpus"]


@cache
def corpus() -> tuple[Case, ...]:
    """Every file, in a fixed order; the same bytes at each call with the same libraries."""
    rooms = (cuts, bombs, lies, labels, metadata, shapes, layouts, moving, refused)
    cases = tuple(case for room in rooms for case in room.cases())
    names = [case.id for case in cases]
    assert len(names) == len(set(names)), "two files of the corpus have one name"
    return cases
