"""A moving picture's way through the graph: frame by frame, each as the still picture that it is.

All frames have the request's seed, so the noise under a place is the same in each. Those that look alike are
enlarged once. This module refuses to know how a picture is enlarged, and how frames are split and joined.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve_app.contracts import FidelityReport, Progress, ProgressCallback
from serve_app.imaging.frames import Frames
from serve_app.stages.animate import frame_params
from serve_app.stages.prepare import Outline
from serve_app.tiles import Job, task_group

FRAMES_AT_ONCE = 2
"""So that one is cut or finished while the other's tiles are at the denoisers."""

_LOWEST_IS_WORST = ("lr_psnr_db", "fidelity")
_SUMMED = ("tiles_retried", "tiles_replaced")


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A picture that went through the graph.

    Attributes:
        outline: Its size and its plan.
        image: Its file, or a reference to it.
        report: How faithful it is; of a moving one, each number is the worst of all frames.
        tiles: That were computed for it.
        frames: That it shows.
    """

    outline: Outline
    image: Any
    report: FidelityReport
    tiles: int
    frames: int = 1


Enlarge = Callable[[Job, ProgressCallback], Awaitable[Enlarged]]


async def enlarge_frames(
    frames: Frames, job: Job, enlarge: Enlarge, on_progress: ProgressCallback
) -> list[Enlarged]:
    """Enlarges the pictures of all frames, `FRAMES_AT_ONCE` at once. The first failure ends the others.

    Args:
        frames: The pictures; over Ray, references that are resolved where they are read.
        job: The request.
        enlarge: Enlarges a still picture.
        on_progress: Told of all frames together.

    Returns:
        One for each of `frames.pictures`.
    """
    params = frame_params(job.params, frames.gray)
    progress = _Together(len(frames.pictures), on_progress)
    found: dict[int, Enlarged] = {}
    waiting = iter(enumerate(frames.pictures))

    async def work() -> None:
        for at, picture in waiting:
            request = job.request.model_copy(update={"image": picture})
            one = replace(job, request=request, params=params)
            found[at] = await enlarge(one, progress.of(at))

    async with task_group() as group:
        for _ in range(FRAMES_AT_ONCE):
            group.create_task(work())
    progress.finish()
    return [found[at] for at in range(len(frames.pictures))]


def together(frames: Frames, enlarged: Sequence[Enlarged], image: bytes) -> Enlarged:
    """One result of all frames.

    Args:
        frames: What they were made of.
        enlarged: Their results.
        image: The file that holds them all.
    """
    reports = [one.report for one in enlarged]
    numbers: dict[str, Any] = {
        name: (sum if name in _SUMMED else min if name in _LOWEST_IS_WORST else max)(
            getattr(report, name) for report in reports
        )
        for name in FidelityReport.model_fields
        if name != "warnings"
    }
    warnings = tuple(
        f"frame {frames.shown.index(at)}: {warning}"
        for at, report in enumerate(reports)
        for warning in report.warnings
    )
    report = FidelityReport(**numbers, warnings=warnings)
    tiles = sum(one.tiles for one in enlarged)
    return Enlarged(enlarged[0].outline, image, report, tiles, len(frames.shown))


class _Together:
    """Sums the progress of pictures of one size; those that have not begun count as the others do."""

    def __init__(self, pictures: int, on_progress: ProgressCallback) -> None:
        self._pictures = pictures
        self._on_progress = on_progress
        self._latest: dict[int, Progress] = {}

    def of(self, at: int) -> ProgressCallback:
        """Who is told of one picture's progress."""

        def report(progress: Progress) -> None:
            self._latest[at] = progress
            self._report("denoise")

        return report

    def finish(self) -> None:
        """All of them are there."""
        self._report("finish")

    def _report(self, stage: str) -> None:
        known = self._latest.values()
        one = next(iter(known))
        self._on_progress(
            Progress(
                stage=stage,
                tiles_done=sum(progress.tiles_done for progress in known),
                tiles_total=one.tiles_total * self._pictures,
                steps_done=sum(progress.steps_done for progress in known),
                steps_total=one.steps_total * self._pictures,
            )
        )
