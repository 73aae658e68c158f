"""Tessera: a picture upscaler on FLUX.1-dev and a ControlNet that keeps a picture's structure."""

__version__ = "0.1.0"
