"""`tessera upscale` of several pictures through a server that has jobs, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve_app.cli import main
from serve_app.cli.journal import FILE
from serve_app.testing import photo_like, png_bytes
from tests.unit.live_jobs import JobServer, serving_jobs

NAMES = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(NAMES):
        (tmp_path / "in" / name).write_bytes(png_bytes(photo_like(6, 8, seed=seed)))
    with serving_jobs(tmp_path / "in") as found:
        yield found


@pytest.fixture
def keyboard() -> Iterator[None]:
    """A shell that starts the tests in the background has the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(server: JobServer, *arguments: str) -> int:
    return main(["upscale", "in", "-o", "out", "--server", server.url, *arguments])


def jobs_of(server: JobServer, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["jobs", "list", "--json", "--server", server.url]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def is_sent() -> bool:
    """Whether the client knows of its job."""
    journal = Path("out") / FILE
    return journal.exists() and "job_" in journal.read_text()


def results() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


class TestThroughAJob:
    def test_results_stand_where_they_always_did(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(server, "--seed", "5", "--scale", "2") == 0
        told = capsys.readouterr()
        assert sorted(told.out.splitlines()) == [
            f"in/{name} -> out/{name} (16x12, seed 5)" for name in NAMES
        ]
        assert "has 4 of the pictures" in told.err
        assert results() == NAMES  # and no journal
        (job,) = jobs_of(server, capsys)
        assert (job["priority"], job["status"]) == ("batch", "succeeded")

    def test_the_lane_is_chosen(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(server, "--priority", "interactive") == 0
        assert [job["priority"] for job in jobs_of(server, capsys)] == ["interactive"]

    def test_json_and_reports_say_what_they_always_did(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(server, "--json", "--report") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(line["input"] for line in lines) == [f"in/{name}" for name in NAMES]
        assert (lines[0]["width"], lines[0]["timings_s"]["denoise"]) == (32, 1.5)
        sidecar = json.loads(Path(f"{lines[0]['output']}.json").read_text())
        assert sidecar == lines[0]

    def test_one_failure_is_that_pictures_alone(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("in/b.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        assert run(server) == 1
        told = capsys.readouterr().err
        assert "in/b.png: broken" in told
        assert "1 of 4 failed" in told
        assert results() == ["a.png", "c.png", "d.png"]

    def test_what_is_there_stands_unless_told(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("out").mkdir()
        Path("out/a.png").write_bytes(b"old")
        assert run(server) == 1
        assert "out/a.png exists; --overwrite replaces it" in capsys.readouterr().err
        assert Path("out/a.png").read_bytes() == b"old"
        assert run(server, "--overwrite") == 0
        assert Path("out/a.png").read_bytes() != b"old"
        counts = [job["counts"]["total"] for job in jobs_of(server, capsys)]  # type: ignore[index]
        assert counts == [4, 3]

    def test_an_input_is_never_overwritten(self, server: JobServer) -> None:
        before = Path("in/a.png").read_bytes()
        assert main(["upscale", "in", "-o", "in", "--server", server.url, "--overwrite"]) == 1
        assert Path("in/a.png").read_bytes() == before
        assert server.ended == 0

    def test_a_server_that_takes_less_is_sent_halves(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for seed in range(3):  # it takes five pictures, of 50,000 bytes
            Path(f"in/{seed}.png").write_bytes(png_bytes(photo_like(5, 5, seed=seed)))
        Path("in/large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60_000))
        assert run(server) == 1
        assert "in/large.png: images: the upload is over 50000 bytes" in capsys.readouterr().err
        assert results() == ["0.png", "1.png", "2.png", *NAMES]
        assert len(jobs_of(server, capsys)) > 1

    def test_refused_parameters_end_it(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(server, "--prompt", "cat") == 1
        assert "prompt: the model fake reads no prompts" in capsys.readouterr().err
        assert results() == []
        assert jobs_of(server, capsys) == []

    def test_progress_is_a_table(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(server, "--progress") == 0
        assert "4 of 4 done\n" in capsys.readouterr().err


@pytest.mark.usefixtures("keyboard")
class TestStopped:
    def interrupted(self, server: JobServer, when: Callable[[], bool]) -> None:
        """Runs the command, and presses Ctrl-C."""

        def look() -> None:
            if when():
                server.on_look = lambda: None
                os.kill(os.getpid(), signal.SIGINT)

        server.on_look = look
        assert run(server) == 130

    def test_the_same_command_goes_on(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.allowed = 2
        self.interrupted(server, lambda: any(Path("out").glob("*.png")))
        told = capsys.readouterr().err
        (job,) = jobs_of(server, capsys)
        assert f"`tessera jobs watch {job['id']} --server {server.url}`" in told
        assert "the same command goes on" in told
        assert FILE in results()
        there = {p: p.stat().st_mtime_ns for p in Path("out").glob("*.png")}
        assert 1 <= len(there) <= 2
        (Path("out") / ".d.png.99999.part").write_bytes(b"half")
        server.allowed = 10_000
        assert run(server) == 0
        told = capsys.readouterr()
        assert f"goes on with {job['id']}" in told.err
        assert len(told.out.splitlines()) == 4 - len(there)  # only what was missing
        assert {p: p.stat().st_mtime_ns for p in there} == there
        assert results() == NAMES
        assert len(jobs_of(server, capsys)) == 1
        assert server.ended == 4

    def test_another_command_has_its_own_entry(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.allowed = 0
        self.interrupted(server, is_sent)
        server.allowed = 10_000
        assert run(server, "--scale", "2", "--overwrite") == 0
        assert len(jobs_of(server, capsys)) == 2
        assert FILE in results()  # the first is not through
        assert run(server, "--overwrite") == 0
        assert len(jobs_of(server, capsys)) == 2
        assert results() == NAMES

    def test_a_job_that_is_gone_is_made_anew(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.allowed = 0
        self.interrupted(server, is_sent)
        journal = Path("out") / FILE
        text = journal.read_text()
        (job,) = jobs_of(server, capsys)
        journal.write_text(text.replace(str(job["id"]), f"job_{'0' * 26}"))
        Path("out/a.png").write_bytes(b"fetched before")
        server.allowed = 10_000
        assert run(server) == 0
        assert Path("out/a.png").read_bytes() == b"fetched before"
        assert results() == NAMES
        assert [job["counts"]["total"] for job in jobs_of(server, capsys)] == [3, 4]  # type: ignore[index]

    def test_a_damaged_journal_is_told(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("out").mkdir()
        (Path("out") / FILE).write_text("{")
        assert run(server) == 2
        assert f"out/{FILE} cannot be read" in capsys.readouterr().err
