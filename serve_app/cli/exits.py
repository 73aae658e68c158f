"""What the process tells its caller at the end."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    """Every input was upscaled."""
    FAILED = 1
    """Some input was not; each is named on stderr with its reason."""
    USAGE = 2
    """The arguments make no sense together; nothing was started."""
    UNREACHABLE = 3
    """The server cannot be reached or is not ready."""
    INTERRUPTED = 130
    """Stopped from the keyboard; no half file is left."""


class UsageError(Exception):
    """The arguments make no sense; its text says why."""
