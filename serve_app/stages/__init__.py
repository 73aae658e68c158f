"""The two CPU stages: bytes to tile crops, and tiles to bytes. No torch, so their processes stay small."""
