"""Thin Ray Serve classes, one file each, and the adapters that make their handles the conductor's parts."""
