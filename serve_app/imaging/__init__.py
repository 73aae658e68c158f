"""File formats: bytes to pixels and back, within limits. NumPy and Pillow only: no tile, no network."""
