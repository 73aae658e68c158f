"""The last stage: rows of tiles to a file, in bands from top to bottom.

Each band is blended, tied to its source, measured and encoded, then forgotten: what is held is a few rows,
the source, and the file on disk. This module refuses to know where the tiles come from and who waits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from serve_app import __version__
from serve_app.contracts import FidelityReport, ModelInfo, ResolvedParams
from serve_app.fidelity.correction import Correction
from serve_app.fidelity.noise import judge_source, lowered
from serve_app.fidelity.report import Measuring
from serve_app.imaging.encode import Encoder, Look
from serve_app.levels import Levels, Pixels
from serve_app.settings import ImageLimits
from serve_app.stages.enlarge import Source, alpha_rows
from serve_app.tiling.blend import Blending, fades
from serve_app.tiling.grid import Plan

_PIECE_BYTES = 8 * 2**20  # of the file, read back at once


@dataclass(frozen=True, slots=True)
class Finished:
    """The result.

    Attributes:
        image: The encoded file; of a frame that is kept, over Ray, references to its pieces.
        report: How faithful it is; of tiles it knows nothing, so it counts none.
    """

    image: bytes
    report: FidelityReport


class Finish:
    """One result in the making; a context that leaves no file behind.

    Args:
        plan: Where the tiles lie.
        params: Say the file format and how firmly the result is tied to its source.
        model: Says so where the caller does not, and in how many rounds.
        source: The decoded source.
        limits: What following its profile and reading its metadata may take.

    Raises:
        InvalidParameter: if the file format cannot hold such a picture.
        Busy: no room on the disk, or no process for its profile or metadata.
    """

    def __init__(
        self,
        plan: Plan,
        params: ResolvedParams,
        model: ModelInfo,
        source: Source,
        limits: ImageLimits,
    ) -> None:
        self._source, self._size, self._written = source, plan.result, 0
        size, colour = plan.result, source.colour
        self._faults = judge_source(colour, source.alpha)
        self._fidelity = params.fidelity
        if self._fidelity is None:
            self._fidelity = lowered(model.defaults.fidelity, self._faults)
        self._blending = Blending(plan)
        rounds = model.backprojection_rounds
        self._correction = Correction(
            colour, size.height, size.width, self._fidelity, rounds, params.color_fix
        )
        seams = (_seams(plan, plan.tops), _seams(plan, plan.lefts))
        self._measuring = Measuring(colour, size.height, size.width, *seams, source.alpha)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-"))
            self._path = Path(folder) / "result"
            has_alpha = source.alpha is not None
            look = _look(params, model, source)
            self._encoder = Encoder(self._path, size.height, size.width, has_alpha, look, limits)
            stack.callback(self._encoder.abort)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, tiles: Sequence[Levels]) -> None:
        """Takes the next row of tiles: (tile_px, tile_px, 3) each, from the left."""
        for band in self._blending.add(tiles):
            for corrected in self._correction.add(band):
                self._write(corrected)

    def end(self) -> Finished:
        """Ends the file and reads it back; all rows of tiles are there."""
        report = self.close()
        return Finished(self._path.read_bytes(), report)

    def close(self) -> FidelityReport:
        """Ends the file, for `pieces`; all rows of tiles are there."""
        self._encoder.close()
        measures = self._measuring.end()
        del self._blending, self._correction, self._measuring  # while the file is sent
        return FidelityReport(
            lr_psnr_db=measures.lr_psnr_db,
            color_error_mean=measures.color_error_mean,
            color_error_p99=measures.color_error_p99,
            edge_agreement=measures.edge_agreement,
            seam_energy=measures.seam_energy,
            fidelity=self._fidelity,
            noise=self._faults.noise,
            blocking=self._faults.blocking,
            tiles_retried=0,
            tiles_replaced=0,
            warnings=self._encoder.warnings,
        )

    def pieces(self) -> Iterator[bytes]:
        """The file, after `close`, without ever holding more than a piece of it."""
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def _write(self, colour: Pixels) -> None:
        top, self._written = self._written, self._written + len(colour)
        alpha = self._source.alpha
        rows = None if alpha is None else alpha_rows(alpha, self._size, top, self._written)
        self._measuring.add(colour, top, rows)
        self._encoder.write(colour, rows)


def _seams(plan: Plan, origins: Sequence[int]) -> list[int]:
    """The middle of each fade."""
    return [start + plan.overlap_px // 2 for start in fades(origins, plan.tile_px, plan.overlap_px)]


def provenance(params: ResolvedParams, model: ModelInfo) -> dict[str, Any]:
    """How a result is made: enough to make it again; written into its file."""
    return {
        "version": __version__,
        "model": model.name,
        "revision": model.revision,
        "seed": params.seed,
        "parameters": params.model_dump(mode="json"),
    }


def _look(params: ResolvedParams, model: ModelInfo, source: Source) -> Look:
    return Look(
        params.output_format,
        params.quality,
        params.bit_depth,
        params.color_profile,
        params.keep_metadata,
        params.keep_gps,
        source.traits,
        provenance(params, model),
    )
