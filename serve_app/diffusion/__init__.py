"""What the network computes: FLUX with a ControlNet, for any batch of tiles. Knows no schedule, no process."""
