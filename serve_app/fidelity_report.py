"""What a result's fidelity report says. Part of `contracts`.

It holds no measuring: that is `fidelity.report`'s.
"""

from __future__ import annotations

from pydantic import Field

from serve_app.params import Contract


class FidelityReport(Contract):
    """How faithful a result is to its source, measured without the truth; see docs/fidelity.md."""

    lr_psnr_db: float = Field(
        description="PSNR of the source and the result scaled down to it, dB; at most 120."
    )
    color_error_mean: float = Field(description="Mean CIEDE2000 between the same two.")
    color_error_p99: float = Field(description="Its 99th percentile.")
    edge_agreement: float = Field(
        description="GMSD of the same two: 0 is equal edges, higher is worse."
    )
    seam_energy: float = Field(
        description="Gradient across tile borders over that beside them; 1 is the source's own."
    )
    fidelity: float = Field(description="How firmly the result was tied to its source, 0 to 1.")
    noise: float = Field(description="Noise found in the source: standard deviation, of 0 to 1.")
    blocking: float = Field(description="JPEG blocks found in the source; 0 is none.")
    tiles_retried: int = Field(description="Tiles that were computed again, for whatever fault.")
    tiles_replaced: int = Field(
        description="Garbage tiles given up: the plain resize stands there."
    )
    faces: int = Field(
        0, description="Faces found, whose tiles were drawn with less strength; 0 if not asked for."
    )
    warnings: tuple[str, ...] = Field((), description="What a person should know of, in sentences.")
