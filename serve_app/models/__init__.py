"""Model folders: the embedded one, and how any of them is found and described without loading a weight."""
