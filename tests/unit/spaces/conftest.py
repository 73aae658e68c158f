"""A Space's modules lie beside its `app.py`, in no package: they are found as they are there."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "spaces" / "gradio"), str(ROOT / "scripts")]
