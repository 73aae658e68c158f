"""How a result is tied to its source and how faithfully it keeps it. NumPy only: no file, no network."""
