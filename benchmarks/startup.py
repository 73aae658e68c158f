"""How long from the start of the process to the first answer, against a hello-world Ray Serve application?

Run by ``make bench-start``. Both are started in turn, several times, each in a Ray of its own with its own
folder for temporary files, on a free port, and ended by pid. Writes ``docs/measurements/startup.md``. Knows
nothing of Tessera but its command line and ``/readyz``.
"""

import argparse
import contextlib
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

REPORT = Path("docs/measurements/startup.md")
START_LIMIT_S = 300.0
STOP_LIMIT_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class Arm:
    """One thing to start: its name, its command without the port, and the path that answers 200 when up."""

    name: str
    command: tuple[str, ...]
    path: str


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first 200, seconds to end, and processes that had to be ended one by one."""

    ready_s: float
    end_s: float
    left_over: int


def main() -> None:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(
        description="Measure the start against a hello-world Serve application's."
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--config", default="configs/local.yaml")
    parser.add_argument(
        "--note", default="", help="a sentence for the report, such as what else was running"
    )
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args()
    arms = (
        Arm("hello", (sys.executable, "-m", "benchmarks.hello"), "/"),
        Arm(
            "Tessera",
            (sys.executable, "-m", "serve_app.app", "--config", options.config),
            "/readyz",
        ),
    )
    load = os.getloadavg()[0]
    starts: dict[str, list[Start]] = {arm.name: [] for arm in arms}
    for repetition in range(options.repetitions):
        for arm in arms:
            start = measure(arm)
            starts[arm.name].append(start)
            print(f"{repetition + 1}: {arm.name:8} ready after {start.ready_s:6.2f} s", flush=True)
    text = report(starts, load, options.note)
    print(text)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(text)
    print(f"wrote {options.report}")


def measure(arm: Arm) -> Start:
    """Start one arm, wait for its first 200, end it, and see that none of its processes is left.

    Raises:
        RuntimeError: it ended by itself, or was not ready in time; the message has the end of its output.
    """
    port = free_port()
    folder = Path(
        tempfile.mkdtemp(prefix="t", dir="/tmp")
    )  # short: Ray's socket paths are bounded by 107 bytes
    environment = os.environ | {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    with (folder / "output").open("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*arm.command, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            ready_s = wait_for_200(f"http://127.0.0.1:{port}{arm.path}", process, started)
        except RuntimeError as error:
            output.seek(0)
            raise RuntimeError(f"{arm.name}: {error}\n{output.read()[-2000:]}") from None
        finally:
            stopping = time.perf_counter()
            left_over = end(process)
        end_s = time.perf_counter() - stopping
    shutil.rmtree(folder, ignore_errors=True)
    return Start(ready_s, end_s, left_over)


def wait_for_200(url: str, process: subprocess.Popen[bytes], started: float) -> float:
    """Seconds from `started` (of `time.perf_counter`) to the first 200."""
    with httpx.Client(timeout=10, trust_env=False) as client:
        while (passed_s := time.perf_counter() - started) < START_LIMIT_S:
            if process.poll() is not None:
                raise RuntimeError(f"ended with status {process.returncode} before it was ready")
            with contextlib.suppress(httpx.HTTPError):
                if client.get(url).status_code == 200:
                    return time.perf_counter() - started
            time.sleep(POLL_S)
    raise RuntimeError(f"not ready after {passed_s:.0f} s")


def end(process: subprocess.Popen[bytes]) -> int:
    """End a process as Ctrl-C would, then whatever of its family is left, each by pid.

    Returns:
        How many processes outlived it and had to be ended one by one.
    """
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT_S)
    _, alive = psutil.wait_procs(family, timeout=10)
    for straggler in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            straggler.terminate()
    _, stubborn = psutil.wait_procs(alive, timeout=10)
    for straggler in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            straggler.kill()
    return len(alive)


def free_port() -> int:
    """A TCP port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def machine() -> str:
    """The machine and the versions, in one line."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, {memory_gib:.0f} GiB of memory, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"Ray {version('ray')}, PyTorch {version('torch')}"
    )


def report(starts: dict[str, list[Start]], load: float, note: str) -> str:
    """The measurement as a page of Markdown."""
    medians = {name: statistics.median(s.ready_s for s in runs) for name, runs in starts.items()}
    rows = "\n".join(
        f"| {name} | {', '.join(f'{s.ready_s:.1f}' for s in runs)} | {medians[name]:.1f} "
        f"| {statistics.median(s.end_s for s in runs):.1f} | {sum(s.left_over for s in runs)} |"
        for name, runs in starts.items()
    )
    ratio = medians["Tessera"] / medians["hello"]
    return (
        f"""# Start: from the process to the first answer

Written by `make bench-start`. Both applications start Ray and Serve themselves on an installed tree, in turn,
each in a Ray of its own; the time runs from the start of the process to the first HTTP 200 (`/` of the
hello-world application, `/readyz` of Tessera, which is 200 only when a Denoiser replica has loaded and warmed
its model).

| application | seconds, each start | median | seconds to end (median) | processes left over |
|---|---|---|---|---|
{rows}

**Tessera takes {ratio:.2f} times as long as the hello-world application; the aim is at most 2.**

{machine()}; load average before the first start: {load:.1f}.
{note}""".rstrip()
        + "\n"
    )


if __name__ == "__main__":
    main()
