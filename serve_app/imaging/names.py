"""What a file's profile calls itself. It runs in the process of `worker`.

This module refuses to know pixels, and who wants the name.
"""

from __future__ import annotations

from io import BytesIO

import pyvips
from PIL import ImageCms

_PROFILE = "icc-profile-data"


def profile_name(data: bytes) -> str | None:
    """Reads a file's header, and the name of its profile.

    Args:
        data: The whole file.

    Returns:
        The name, as a stranger wrote it; `sRGB` where the file has no profile, None where it cannot be opened.
    """
    try:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential")
        if _PROFILE not in image.get_fields():
            return "sRGB"
        opened = ImageCms.getOpenProfile(BytesIO(image.get(_PROFILE)))
        return ImageCms.getProfileDescription(opened).strip()
    except (pyvips.Error, ImageCms.PyCMSError, OSError):
        return None
