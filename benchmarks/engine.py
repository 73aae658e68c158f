"""What the engine gains: each part is a ratio of contenders in one run, in alternating rounds.

    a  latency of somebody who waits, while a batch job runs
    b  throughput of mixed steps and parameters
    c  throughput by batch size
    e  one picture over 1 to 8 denoisers that sleep instead of computing

Run by `make bench-engine`; `--only a` measures one part and leaves the others' numbers as they are. Writes
docs/measurements/engine.md and, beside it, the raw numbers and a chart of each part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks import engine_latency, engine_scaling, engine_sizes, engine_throughput
from benchmarks.cluster import local_cluster

FOLDER = Path(__file__).parents[1] / "docs" / "measurements"
PARTS: dict[str, Any] = {
    "a": engine_latency,
    "b": engine_throughput,
    "c": engine_sizes,
    "e": engine_scaling,
}
HEAD = """# What the engine gains

`make bench-engine`, on {machine}. Each section was measured in one run of its own; `ARGS='--only a'`
takes one again. The raw numbers are in [engine.json](engine.json). In a and b all contenders compute with
the same runner on the embedded model, each a Ray Serve deployment of one replica: `serve.batch` computes the
tiles that arrived together to their end, sequential serves one request at a time and a tile after the other.
"""


def write(folder: Path) -> None:
    """Writes the page and its charts from the raw numbers."""
    found = json.loads((folder / "engine.json").read_text())
    sections = [HEAD.format(machine=f"{os.cpu_count()} cores ({platform.machine()})")]
    for name, part in PARTS.items():
        if name in found:
            text, chart = part.report(found[name])
            (folder / f"engine-{name}.svg").write_text(chart)
            title = f"## {name}. {part.TITLE}"
            sections.append(f"{title}\n\n{text}\n![{part.TITLE}](engine-{name}.svg)\n")
    (folder / "engine.md").write_text("\n".join(sections))


def keep(folder: Path, name: str, measured: dict[str, Any]) -> None:
    """Stores a part's raw numbers beside the others' and writes the page."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "engine.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {name: measured}, indent=1) + "\n")
    write(folder)


def main() -> None:
    """Measures the parts asked for and writes the page anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs")
    parser.add_argument("--out", type=Path, help="folder; docs/measurements, nowhere if quick")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = options.out or (None if options.quick else FOLDER)
    # Where it matters that parts run, and not how fast, they share a Ray; else each has one of its own.
    shared = options.quick and len(options.only) > 1
    with local_cluster(cpus=16) if shared else nullcontext():
        for name in options.only:
            measured = PARTS[name].measure(options.quick, options.rounds)
            print(PARTS[name].report(measured)[0], flush=True)
            if folder is not None:
                keep(folder, name, measured)


if __name__ == "__main__":
    main()
