"""`python -m tests.chaos --database postgresql --items 200 --seed 1` prints what became of a trial."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.chaos.trial import run
from tests.postgres import fresh, serving


def main() -> None:
    """Runs one trial."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Path(folder)
        how = (chosen.items, chosen.seed, chosen.pace)
        if chosen.database == "sqlite":
            report = asyncio.run(run(place, f"sqlite:///{folder}/jobs.db", None, *how))
        else:
            with serving() as server:
                report = asyncio.run(run(place, fresh(server.url), server, *how))
    print(report.as_json())


if __name__ == "__main__":
    main()
