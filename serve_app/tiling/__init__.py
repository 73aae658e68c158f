"""Where a tile lies, what noise it gets, and how tiles join. NumPy only: no network, no file format."""
