"""Settings are read, and refused, before anything starts."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.config import AutoscalingConfig

from serve_app.app import build_app, denoiser_options, main, read_settings
from serve_app.deployments.listening import check_port, grpc_options
from serve_app.errors import ConfigurationError
from serve_app.settings import Settings

LOCAL = Path(__file__).parents[2] / "configs" / "local.yaml"


def write(path: Path, config: object) -> Path:
    file = path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_the_shipped_config_is_the_defaults_with_two_denoisers() -> None:
    assert read_settings(LOCAL) == Settings.parse(
        {"home": "ui/", "deployments": {"denoiser_replicas": 2}}
    )


def test_its_import_path_builds_an_application() -> None:
    config = yaml.safe_load(LOCAL.read_text())["applications"][0]
    assert config["import_path"] == f"{build_app.__module__}:{build_app.__name__}"
    assert isinstance(build_app(Settings.parse(config["args"])), Application)


def test_ray_serve_parses_the_args_by_the_builders_type() -> None:
    """As `serve run` and `serve deploy` do; a postponed annotation would hand over a bare dict."""
    args = yaml.safe_load(LOCAL.read_text())["applications"][0]["args"]
    assert isinstance(call_user_app_builder_with_args_if_necessary(build_app, args), Application)
    with pytest.raises(ValidationError, match="max_bach"):
        call_user_app_builder_with_args_if_necessary(build_app, {"engine": {"max_bach": 1}})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "not a Ray Serve config"),
        ([], "not a Ray Serve config"),
        ({"applications": []}, "not a Ray Serve config"),
        ({"applications": [{"args": {"modle": "mini"}}]}, "modle"),
        ({"applications": [{"args": {"engine": {"max_batch": 0}}}]}, "engine.max_batch"),
        ({"applications": [{"args": {}, "deployments": []}]}, "serve run"),
    ],
)
def test_a_bad_config_is_refused_with_its_reason(tmp_path: Path, config: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_settings(write(tmp_path, config))


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        read_settings(tmp_path / "none.yaml")


def test_an_unknown_model_ends_with_code_2_before_ray_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path, {"applications": [{"args": {"model": "maxi"}}]})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert main(["--config", str(config), "--port", str(port)]) == 2
    assert "'maxi' is neither a shipped model nor a folder" in capsys.readouterr().err


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="make run PORT="):
            check_port("127.0.0.1", taken.getsockname()[1])


def test_a_foreign_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        check_port("192.0.2.1", 8000)


def test_text_encoders_are_part_of_the_graph_where_the_model_takes_prompts(
    tiny_flux_folder: Path,
) -> None:
    def deployments(model: object) -> set[str]:
        bound = build_app(Settings.parse({"model": str(model)}))._bound_deployment.init_args
        found = [part._bound_deployment for part in bound if isinstance(part, Application)]
        return {deployment.name for deployment in found}

    others = {"Preprocess", "Denoiser", "Postprocess", "JobRunner"}
    assert deployments("mini") == others
    assert deployments(tiny_flux_folder) == others | {"PromptEncoder"}


def test_a_folder_of_adapters_that_is_not_there_is_refused(tmp_path: Path) -> None:
    args = Settings.parse({"model": {"source": "mini", "loras": str(tmp_path / "nowhere")}})
    with pytest.raises(ConfigurationError, match=r"model\.loras"):
        build_app(args)


def test_what_ray_is_told_of_the_denoisers_follows_from_the_engine() -> None:
    engine, requests = (
        {"max_batch": 4, "max_waiting": 10},
        {"pictures_at_once": 3, "tiles_at_once": 5},
    )
    fixed = denoiser_options(
        Settings.parse(
            {"engine": engine, "requests": requests, "deployments": {"denoiser_replicas": 6}}
        )
    )
    assert fixed["num_replicas"] == 6
    assert fixed["max_ongoing_requests"] == 2 * (4 + 10)  # both lanes' places and queues
    assert fixed["max_queued_requests"] == 3 * 5
    follows = denoiser_options(
        Settings.parse(
            {"engine": engine, "deployments": {"denoiser_autoscaling": {"max_replicas": 9}}}
        )
    )
    assert "num_replicas" not in follows
    scaling = AutoscalingConfig(**follows["autoscaling_config"])
    assert (scaling.min_replicas, scaling.max_replicas) == (0, 9)
    assert scaling.target_ongoing_requests == 4 + 1


def bound_settings(args: Settings) -> dict[str, Settings]:
    """What the gateway and the parts that it is bound to are given, by their names."""
    gateway = build_app(args)._bound_deployment
    parts = [part._bound_deployment for part in gateway.init_args if isinstance(part, Application)]
    return {part.name: part.init_args[0] for part in (gateway, *parts) if part.init_args}


def test_without_jobs_there_is_no_runner() -> None:
    assert "JobRunner" not in bound_settings(Settings.parse({"jobs": {"enabled": False}}))


def test_replicas_find_what_lies_in_the_folder_of_who_starts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = bound_settings(Settings())
    for name in ("Gateway", "JobRunner"):
        assert given[name].jobs.database_url == f"sqlite:///{tmp_path}/.tessera/jobs.db"
        assert given[name].jobs.blobs_url == f"{tmp_path}/.tessera/blobs"


def test_what_one_caller_can_send_covers_a_runner() -> None:
    many = {"requests": {"pictures_at_once": 2, "tiles_at_once": 3}, "jobs": {"items_at_once": 5}}
    assert denoiser_options(Settings.parse(many))["max_queued_requests"] == 5 * 3


def test_the_grpc_service_that_serve_is_told_of_exists() -> None:
    (service,) = grpc_options(9000)["grpc_servicer_functions"]
    module, name = service.rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), name))
