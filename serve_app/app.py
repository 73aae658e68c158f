"""The composition root: `build_app(args)` puts the Ray Serve graph together; `main` runs it on one machine.

`serve run configs/local.yaml` calls `build_app` with the args of that file. `python -m serve_app.app` does
so too, and adds what a newcomer needs: a clear word when the port is taken, the URL to open when all is
ready.
"""

# No postponed annotations here: Ray Serve reads the type of `build_app`'s argument from its signature.
import argparse
import importlib.util
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve import Application, Deployment, RunTarget
from ray.serve.config import RequestRouterConfig

from serve_app.contracts import ModelInfo
from serve_app.deployments.denoiser import Denoiser
from serve_app.deployments.gateway import Gateway
from serve_app.deployments.jobrunner import JobRunner
from serve_app.deployments.listening import check_port, grpc_options, reached
from serve_app.deployments.page import Page
from serve_app.deployments.postprocess import Postprocess
from serve_app.deployments.preprocess import Preprocess
from serve_app.deployments.prompts import PromptEncoder
from serve_app.deployments.routing import FewestFirstRouter
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.cost import StepCost
from serve_app.models.loras import with_loras
from serve_app.settings import PageSettings, Settings

APP_NAME = "tessera"
PAGE_NAME, PAGE_PREFIX = "page", "/ui"
# far above `pictures_at_once`: a full gateway still answers, with 429, and whoever follows a job costs little
_GATEWAY_ONGOING = 10_000
_CPU_STAGE_ONGOING = 4
_HAND_BACK_S = 10  # a runner told to stop has its leases to hand back, and nothing to finish
_LOOP_CHECK_S = 3  # a runner whose loop has ended is replaced after three checks
OBJECT_STORE_BYTES = 512 * 2**20  # tiles of a 50-MP result; what is more waits on the disk
_HEALTH_TIMEOUT_S = 60  # the probe waits for the step that runs; loading an adapter is the longest


def build_app(args: Settings) -> Application:
    """Builds the graph: Gateway and JobRunner -> Preprocess, PromptEncoder, Denoiser, Postprocess.

    Args:
        args: The application's settings; Ray Serve parses them from the `args` of a config file.

    Raises:
        ConfigurationError: if the model or its folder of adapters cannot be found.
    """
    model = read_model_info(find_model(args.model.source, args.model.cache_dir))
    cost = StepCost.read(args.model)
    return compose(args, with_loras(model, args.model.loras), Denoiser, cost)


def compose(
    args: Settings,
    model: ModelInfo,
    denoiser_class: type[Denoiser],
    cost: StepCost | None = None,
) -> Application:
    """Puts the graph together for a model, the class that denoises its tiles, and what its steps cost."""
    args = args.model_copy(update={"jobs": args.jobs.below(Path.cwd())})
    size = args.deployments
    preprocess = serve.deployment(
        Preprocess,
        num_replicas=size.cpu_stage_replicas,
        max_ongoing_requests=_CPU_STAGE_ONGOING,
        graceful_shutdown_timeout_s=size.drain_s,
        ray_actor_options={"num_cpus": size.preprocess_cpus},
    )
    postprocess = serve.deployment(
        Postprocess,
        num_replicas=size.cpu_stage_replicas,
        max_ongoing_requests=_CPU_STAGE_ONGOING,
        graceful_shutdown_timeout_s=size.drain_s,
        ray_actor_options={"num_cpus": size.postprocess_cpus},
    )
    denoiser = serve.deployment(denoiser_class, name="Denoiser", **denoiser_options(args))
    gateway = serve.deployment(
        Gateway,
        max_ongoing_requests=_GATEWAY_ONGOING,
        graceful_shutdown_timeout_s=args.requests.timeout_s,  # as long as a request may take
        ray_actor_options={"num_cpus": size.gateway_cpus},
    )
    conducted = (
        args,
        model,
        preprocess.bind(args),
        _prompts(args).bind(args) if model.takes_prompt else None,
        denoiser.bind(args),
        postprocess.bind(args),
    )
    runner = _runner(args).bind(*conducted) if args.jobs.enabled else None
    return gateway.bind(*conducted, runner, cost)


def build_page_app(args: PageSettings) -> Application:
    """Builds the page's application; it is called by `serve run`, too.

    Raises:
        ConfigurationError: if Gradio is not installed.
    """
    if not _has_page():
        raise ConfigurationError("the page needs Gradio, which `make install` installs")
    page = serve.deployment(
        Page, max_ongoing_requests=_GATEWAY_ONGOING, ray_actor_options={"num_cpus": args.cpus}
    )
    return page.bind(args)


def _has_page() -> bool:
    return importlib.util.find_spec("gradio") is not None


def _runner(args: Settings) -> Deployment:
    return serve.deployment(
        JobRunner,
        num_replicas=args.jobs.runner_replicas,
        graceful_shutdown_timeout_s=_HAND_BACK_S,
        health_check_period_s=_LOOP_CHECK_S,
        ray_actor_options={"num_cpus": args.jobs.runner_cpus},
    )


def _prompts(args: Settings) -> Deployment:
    chosen = args.prompts
    return serve.deployment(
        PromptEncoder,
        max_ongoing_requests=_CPU_STAGE_ONGOING,
        autoscaling_config={
            "min_replicas": chosen.min_replicas,
            "max_replicas": chosen.max_replicas,
            "target_ongoing_requests": _CPU_STAGE_ONGOING / 2,
        },
        ray_actor_options={"num_cpus": chosen.cpus, "num_gpus": chosen.gpus},
    )


def denoiser_options(args: Settings) -> dict[str, Any]:
    """What Ray Serve must know of the denoisers; it follows from the engine's batch and queue."""
    engine, size = args.engine, args.deployments
    pictures = max(args.requests.pictures_at_once, args.jobs.items_at_once)
    scale: dict[str, Any] = {"num_replicas": size.denoiser_replicas}
    if auto := size.denoiser_autoscaling:
        scale = {
            "autoscaling_config": {
                "min_replicas": auto.min_replicas,
                "max_replicas": auto.max_replicas,
                # a full batch, and a tile that is there when a place becomes free: more than that is backlog
                "target_ongoing_requests": engine.max_batch + 1,
                "look_back_period_s": auto.look_back_s,
                # how often gateways report; Ray 2.60 does not read the variable that is to replace it
                "metrics_interval_s": auto.look_back_s / 5,
                "upscale_delay_s": auto.upscale_delay_s,
                "downscale_delay_s": auto.downscale_delay_s,
            }
        }
    return scale | {
        # all that the engine takes: it decides who runs, and no tile waits where priority counts nothing
        "max_ongoing_requests": 2 * (engine.max_batch + engine.max_waiting),
        # all that one gateway or runner can send
        "max_queued_requests": pictures * args.requests.tiles_at_once,
        "request_router_config": RequestRouterConfig(request_router_class=FewestFirstRouter),
        "graceful_shutdown_timeout_s": size.drain_s,
        "health_check_timeout_s": _HEALTH_TIMEOUT_S,
        "ray_actor_options": {"num_cpus": size.denoiser_cpus, "num_gpus": size.denoiser_gpus},
    }


def read_settings(path: Path) -> Settings:
    """Reads the settings of the one application in a Ray Serve config file.

    Raises:
        ConfigurationError: if the file is not such a config.
    """
    try:
        config: dict[str, Any] = yaml.safe_load(path.read_text())
        application = config["applications"][0]
        args = application.get("args", {})
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise ConfigurationError(f"{path}: not a Ray Serve config: {error!r}") from None
    if "deployments" in application:
        raise ConfigurationError(
            f"{path}: overrides of deployments are read by `serve run` and `serve deploy` only"
        )
    return Settings.parse(args)


def main(argv: list[str] | None = None) -> int:
    """Runs the application in the foreground until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.app", description=__doc__)
    parser.add_argument("--config", type=Path, help="a Ray Serve config; its args are used")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, help="answer gRPC there, too; on every address")
    options = parser.parse_args(argv)
    try:
        check_port(options.host, options.port)
        if options.grpc_port is not None:
            check_port("0.0.0.0", options.grpc_port)
        settings = read_settings(options.config) if options.config else Settings()
        home = PAGE_PREFIX.strip("/") + "/" if _has_page() else "docs"
        settings = settings.model_copy(update={"home": home})
        targets = [RunTarget(build_app(settings), APP_NAME)]
        if _has_page():
            url = reached(options.host, options.port)
            page = PageSettings(server=url, jobs=settings.jobs.enabled)
            targets.append(RunTarget(build_page_app(page), PAGE_NAME, PAGE_PREFIX))
    except ConfigurationError as error:
        print(f"tessera: {error.detail}", file=sys.stderr)
        return 2
    return _serve(targets, options.host, options.port, options.grpc_port)


def _serve(targets: list[RunTarget], host: str, port: int, grpc_port: int | None) -> int:
    print(f"tessera: starting on http://{host}:{port} ...", flush=True)
    ray.init(
        address="local",
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=os.environ.get("TESSERA_VERBOSE") == "1",
        configure_logging=False,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # after ray.init, which sets handlers of its own
        signal.signal(number, signal.default_int_handler)
    try:
        rpc = None if grpc_port is None else grpc_options(grpc_port)
        serve.start(http_options={"host": host, "port": port}, grpc_options=rpc)
        started = time.monotonic()
        serve.run_many(targets)
        print(_welcome(reached(host, port), time.monotonic() - started), flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("tessera: stopping", flush=True)
        _hand_back()
    finally:
        ray.shutdown()  # the cluster is this process's own, so it takes Serve with it
    return 0


def _hand_back() -> None:
    """Jobs go on at the next start at once, instead of after their leases have run out."""
    with suppress(Exception):  # not started yet, or in trouble: then leases run out
        if JobRunner.__name__ in serve.status().applications[APP_NAME].deployments:
            handle = serve.get_deployment_handle(JobRunner.__name__, APP_NAME)
            handle.stop.remote().result(timeout_s=_HAND_BACK_S)


def _welcome(url: str, seconds: float) -> str:
    page = f"""The page, to use in a browser:

    {url}{PAGE_PREFIX}/

"""
    return f"""
Tessera is ready ({seconds:.0f} s). {page if _has_page() else ""}Its API, to try in a browser:

    {url}/docs

Upscale a picture four times as wide and high:

    curl -sS -F image=@examples/photo.jpg -F scale=4 {url}/v1/upscale -o photo-4x.png

Ctrl-C stops it."""


if __name__ == "__main__":
    sys.exit(main())
