from pathlib import Path

from benchmarks.jobs import main


def test_the_benchmark_runs_and_writes_its_table(tmp_path: Path) -> None:
    page = tmp_path / "jobs.md"
    page.write_text("before\n\n<!-- jobs -->\n<!-- end of jobs -->\n\nafter\n")
    main(["--sizes", "3", "6", "--page", str(page)])
    text = page.read_text()
    assert "| sqlite | 6 against 3 |" in text
    assert text.startswith("before")
    assert text.endswith("after\n")
