"""When a tile is computed, and with whom: step-level continuous batching on one accelerator."""
