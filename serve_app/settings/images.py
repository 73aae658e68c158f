"""What a picture may weigh."""

from __future__ import annotations

from pydantic import Field

from serve_app.settings.group import Group


class ImageLimits(Group):
    """What a picture may weigh, judged from its header before a pixel is decoded."""

    upload_bytes: int = Field(
        64 * 2**20,
        gt=0,
        description="Bytes of one uploaded file; holds a 50 MP PNG of a photograph.",
    )
    source_pixels: int = Field(
        50_000_000,
        gt=0,
        description="Pixels of a source; today's largest common camera sensors stay under it.",
    )
    result_pixels: int = Field(
        200_000_000,
        gt=0,
        description="Pixels of a result; 2.4 GB as 32-bit colour while it is put together.",
    )
    frames: int = Field(
        500,
        gt=0,
        le=2000,
        description="Frames of a moving picture; all together count against the limits on pixels, too.",
    )
    metadata_bytes: int = Field(
        8 * 2**20,
        gt=0,
        description="Bytes of one colour profile, EXIF or XMP block; scanners' profiles reach 2 MB.",
    )
    decode_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds to decode one file; 50 MP take 1 to 10. Then the decoder is replaced.",
    )
    decode_memory_bytes: int = Field(
        3 * 2**30,
        ge=2**29,
        description="Address space of the decoder's process, the decoded picture included.",
    )
