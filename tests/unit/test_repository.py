"""Holds what is written about the repository to what is in it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serve_app.contracts import ModelInfo, UpscaleParams, allowed_range
from serve_app.settings import PageSettings, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SOURCE_FOLDERS = ("serve_app", "training", "benchmarks", "examples", "tests")
SOURCES = sorted(path for folder in SOURCE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = [
    path
    for path in SOURCES
    if path.is_relative_to(ROOT / "serve_app") and "_pb2" not in path.name  # made by `make proto`
]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(
        path
        for folder in ("docs", "k8s", *SOURCE_FOLDERS)
        for path in (ROOT / folder).rglob("*.md")
    ),
]

# Modules whose tests stand elsewhere, and where.
TESTED_ELSEWHERE = {
    "serve_app/api/answers.py": "tests/unit/api/test_app.py",
    "serve_app/api/edge.py": "tests/unit/api/test_app.py",
    "serve_app/api/jobs/desk.py": "tests/unit/api/jobs/test_routes.py",
    "serve_app/api/jobs/documents.py": "tests/unit/api/test_openapi.py",
    "serve_app/api/jobs/form.py": "tests/unit/api/jobs/test_submission.py",
    "serve_app/api/jobs/gathering.py": "tests/unit/api/jobs/test_submission.py",
    "serve_app/api/jobs/schemas.py": "tests/unit/api/jobs/test_routes.py",
    "serve_app/api/dialects/errand.py": "tests/unit/api/dialects/test_sdwebui.py",
    "serve_app/api/dialects/openai_form.py": "tests/unit/api/dialects/test_openai.py",
    "serve_app/api/dialects/openai_schemas.py": "tests/unit/api/dialects/test_openai.py",
    "serve_app/api/dialects/openai_stream.py": "tests/unit/api/dialects/test_openai.py",
    "serve_app/api/dialects/replicate_files.py": "tests/unit/api/dialects/test_replicate.py",
    "serve_app/api/dialects/replicate_schemas.py": "tests/unit/api/dialects/test_replicate.py",
    "serve_app/api/dialects/sdwebui_schemas.py": "tests/unit/api/dialects/test_sdwebui.py",
    "serve_app/api/metrics.py": "tests/unit/api/jobs/test_metrics.py",
    "serve_app/imaging/errands.py": "tests/unit/imaging/test_worker.py",
    "serve_app/api/multipart.py": "tests/unit/api/test_body.py",
    "serve_app/api/routes.py": "tests/unit/api/test_app.py",
    "serve_app/api/schemas.py": "tests/unit/api/test_openapi.py",
    "serve_app/app.py": "tests/integration/test_app.py",
    "serve_app/choices.py": "tests/unit/test_contracts.py",
    "serve_app/client/connection.py": "tests/unit/client/test_upscaler.py",
    "serve_app/client/events.py": "tests/unit/client/test_upscaler.py",
    "serve_app/client/form.py": "tests/unit/client/test_upscaler.py",
    "serve_app/client/options.py": "tests/unit/client/test_asynchronous.py",
    "serve_app/client/records.py": "tests/unit/client/test_asynchronous.py",
    "serve_app/client/upload.py": "tests/unit/client/test_jobs.py",
    "serve_app/deployments/denoiser.py": "tests/integration/test_faults.py",
    "serve_app/deployments/gateway.py": "tests/integration/test_http.py",
    "serve_app/deployments/listening.py": "tests/unit/test_app.py",
    "serve_app/deployments/postprocess.py": "tests/integration/test_http.py",
    "serve_app/deployments/preprocess.py": "tests/integration/test_http.py",
    "serve_app/deployments/page.py": "tests/integration/test_ui.py",
    "serve_app/fetch/wire.py": "tests/unit/fetch/test_client.py",
    "serve_app/fidelity_report.py": "tests/unit/test_contracts.py",
    "serve_app/imaging/child.py": "tests/unit/imaging/test_worker.py",
    "serve_app/imaging/traits.py": "tests/unit/imaging/test_encode.py",
    "serve_app/jobs/deposit.py": "tests/unit/jobs/test_sweep.py",
    "serve_app/jobs/database.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/ending.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/following.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/housekeeping.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/keeping.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/leasing.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/metrics.py": "tests/unit/api/jobs/test_metrics.py",
    "serve_app/jobs/moves.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/outbox.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/part.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/records.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/schema.py": "tests/unit/jobs/test_store.py",
    "serve_app/jobs/submitting.py": "tests/unit/jobs/test_store.py",
    "serve_app/ledger.py": "tests/unit/test_upscale.py",
    "serve_app/model_info.py": "tests/unit/test_contracts.py",
    "serve_app/parts.py": "tests/unit/test_upscale.py",
    "serve_app/params.py": "tests/unit/test_contracts.py",
    "serve_app/rows.py": "tests/unit/test_upscale.py",
    "serve_app/testing.py": "tests/unit/api/test_app.py",
    "serve_app/testing_app.py": "tests/integration/test_autoscaling.py",
    "serve_app/ui/backend.py": "tests/unit/ui/test_memory.py",
    "serve_app/ui/batch.py": "tests/integration/test_ui.py",
    "serve_app/ui/endpoints.py": "tests/integration/test_ui.py",
    "serve_app/ui/look.py": "tests/integration/test_ui.py",
    "serve_app/ui/picture.py": "tests/integration/test_ui.py",
    "serve_app/testing_engine.py": "tests/unit/engine/test_engine.py",
}

MOST_LINES = 300
MOST_LINES_OF_TESTS = 500
MOST_BYTES = 16 * 2**20

# What the processes without an accelerator are made of.
LIGHT_MODULES = (
    "serve_app.api.app",
    "serve_app.client",
    "serve_app.client",
    "serve_app.deployments.gateway",
    "serve_app.deployments.postprocess",
    "serve_app.deployments.preprocess",
    "serve_app.engine.scheduler",
    "serve_app.engine.task",
    "serve_app.stages.finish",
    "serve_app.stages.prepare",
    "serve_app.upscale",
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def table_after(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under a heading, without its head."""
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


# The documents


@pytest.mark.parametrize("command", ["make run", "make test", "make demo"])
def test_the_readme_names_the_commands(command: str):
    assert command in README


def test_the_readmes_parameter_table_is_the_contract():
    expected = [
        [f"`{name}`", allowed_range(UpscaleParams, name), field.description]
        for name, field in UpscaleParams.model_fields.items()
    ]
    lines = "\n".join(f"| {' | '.join(map(str, row))} |" for row in expected)
    assert table_after(README, "Parameters") == expected, f"the table should be:\n{lines}"


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("README.md", "I want to change ..."),
        ("docs/architecture.md", "Invariants, and where each is tested"),
    ],
)
def test_the_files_of_a_table_exist(page: str, heading: str):
    rows = table_after((ROOT / page).read_text(), heading)
    named = [cell.strip("`") for _, cell in rows]
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_internal_links_resolve(page: Path):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    internal = [target.split("#")[0] for target in targets if "://" not in target]
    made = re.compile(
        r"(\.\./)?reference/\w+\.md"
    )  # scripts/docs_reference.py; the strict build checks these
    assert [n for n in internal if not made.fullmatch(n) and not (page.parent / n).exists()] == []


def test_the_documented_model_descriptions_are_valid():
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs/flux.md").read_text(), re.DOTALL)
    models = [ModelInfo.model_validate_json(block) for block in blocks]
    assert len(models) == 2
    assert all(model.tile_px == 1024 for model in models)


def test_the_documented_config_is_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/flux.md").read_text(), re.DOTALL)
    (application,) = yaml.safe_load(blocks[0])["applications"]
    assert Settings.parse(application["args"]).engine.device == "cuda"
    shipped, page = yaml.safe_load((ROOT / "configs/local.yaml").read_text())["applications"]
    assert PageSettings.model_validate(page["args"]).jobs
    assert application["name"] == shipped["name"]


# The Makefile


def test_every_target_has_help():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    helped = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    assert sorted(phony[1].split()) == sorted(helped)


def test_continuous_integration_runs_lint_and_test():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make lint test"


def preflight(python: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "scripts/preflight", python, tmp_path / "venv"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_preflight_passes_here(tmp_path: Path):
    if shutil.disk_usage(ROOT).free < 4 * 10**9:
        pytest.skip("this disk is nearly full")
    found = preflight(sys.executable, tmp_path)
    assert (found.returncode, found.stderr) == (0, "")


def test_preflight_names_a_missing_python(tmp_path: Path):
    found = preflight("no-such-python", tmp_path)
    assert found.returncode == 1
    assert "apt install python3" in found.stderr


def test_preflight_names_an_old_python(tmp_path: Path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    found = preflight(str(old), tmp_path)
    assert found.returncode == 1
    assert "3.9.2" in found.stderr


# Dependencies


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stated = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in stated}


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [needed for needed in found if needed.name != PROJECT["name"]]


def test_torch_is_pinned_exactly_and_without_a_build():
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins()["torch"])


def test_the_torch_family_is_torch_alone():
    assert not {"torchvision", "torchaudio"} & pins().keys()


@pytest.mark.parametrize("needed", requirements(), ids=lambda needed: needed.name)
def test_each_requirement_has_a_fitting_pin_and_a_reason(needed: Requirement):
    assert needed.specifier.contains(pins()[canonicalize_name(needed.name)])
    reasons = (ROOT / "docs/decisions/0004-dependencies.md").read_text()
    assert f"\n| {needed.name} | " in reasons


def test_serve_app_imports_only_what_it_requires():
    extras = PROJECT["optional-dependencies"]
    allowed = [*PROJECT["dependencies"], *extras["client"], *extras["serve"], *extras["gpu"]]
    required = {canonicalize_name(Requirement(line).name) for line in allowed}
    required.add("gradio")  # installed apart: docs/decisions/0020-page.md
    assert "gradio" in pins()
    known = packages_distributions()
    known["google"] = ["protobuf"]  # a namespace of many
    known["dlib"] = ["dlib-bin"]  # which does not say what it holds
    imported: dict[str, str] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            imported |= {name.split(".")[0]: relative(path) for name in names}
    own = {"serve_app", *sys.stdlib_module_names}
    undeclared = {
        name: path
        for name, path in imported.items()
        if name not in own
        and not required & {canonicalize_name(d) for d in known.get(name, [name])}
    }
    assert undeclared == {}


@pytest.mark.parametrize("module", ["serve_app.client", "serve_app.cli"])
def test_the_client_needs_only_what_its_extra_brings(module: str):
    allowed = {"serve_app", *sys.stdlib_module_names, "__editable___tessera_upscaler_finder"}
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["client"]]
    wanted = [Requirement(line) for line in asked]
    distributions = set[str]()
    while wanted:
        needed = wanted.pop()
        name = canonicalize_name(needed.name)
        if name not in distributions and (needed.marker is None or needed.marker.evaluate()):
            distributions.add(name)
            wanted += [Requirement(line) for line in requires(name) or []]
    known = packages_distributions()
    allowed |= {m for m in known if {canonicalize_name(d) for d in known[m]} & distributions}
    script = f"""
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {sorted(allowed)} and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Only())
import {module}
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_light_processes_never_load_torch():
    script = f"import sys, {', '.join(LIGHT_MODULES)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


# The tree


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_source_file_is_too_long(path: Path):
    tests = path.is_relative_to(ROOT / "tests")
    assert len(path.read_text().splitlines()) <= (MOST_LINES_OF_TESTS if tests else MOST_LINES)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_why_it_exists(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    "path",
    [m for m in MODULES if m.name != "__init__.py" and "migrations" not in m.parts],
    ids=relative,
)
def test_every_module_has_its_tests(path: Path):
    """`a/b.py` has `a/test_b.py`; a package's modules may share `test_a.py` beside the folder."""
    inside = path.relative_to(ROOT / "serve_app")
    mirror = inside.parent / f"test_{inside.name}"
    shared = (
        inside.parent.with_name(f"test_{inside.parent.name}.py") if inside.parts[1:] else mirror
    )
    places = [f"tests/unit/{mirror.as_posix()}", f"tests/unit/{shared.as_posix()}"]
    elsewhere = TESTED_ELSEWHERE.get(relative(path))
    assert any((ROOT / place).is_file() for place in ([elsewhere] if elsewhere else places))


def test_no_tracked_file_is_too_large():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    tracked = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    large = [
        relative(path) for path in tracked if path.is_file() and path.stat().st_size > MOST_BYTES
    ]
    assert large == []
