"""A cluster of several nodes on this machine, scaled by Ray's real autoscaler; the GPUs are claimed, not there.

Each node is a real raylet. Ray's own `AutoscalingCluster` ends every Ray of the machine; this ends its own
processes alone, those included that outlive their node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)

from tests.integration.conftest import free_port

ROOT = Path(__file__).parents[2]
_MARK = "TESSERA_TEST_CLUSTER"  # in the environment of each process of a cluster, handed down from its head


@contextmanager
def fake_cluster(
    groups: Mapping[str, tuple[Mapping[str, int], int]], idle_s: float
) -> Iterator[dict[str, str]]:
    """Runs a head without CPUs that adds nodes as they are asked for.

    Args:
        groups: Resources of a node of each group, and most nodes of it; there are none at first.
        idle_s: Seconds without use after which a node goes.

    Yields:
        The environment for a driver, `RAY_ADDRESS` in it.
    """
    port, client_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    mark = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="tessera-"))  # short: sockets lie in it
    config = folder / "cluster.json"
    config.write_text(json.dumps(_cluster_config(address, groups, idle_s)))
    own = {_MARK: mark, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    of_the_head = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    env = os.environ | own | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"]
    command += [f"--ray-client-server-port={client_port}", "--dashboard-agent-listen-port=0"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}"]
    command += ["--num-cpus=0", f"--autoscaling-config={config}"]
    try:
        started = subprocess.run(
            command, env=env | of_the_head, capture_output=True, text=True, timeout=120, check=False
        )
        assert started.returncode == 0, started.stdout + started.stderr
        yield env | {"RAY_ADDRESS": address}
    finally:
        _end_all(mark)
        shutil.rmtree(folder, ignore_errors=True)


def _cluster_config(
    address: str, groups: Mapping[str, tuple[Mapping[str, int], int]], idle_s: float
) -> dict[str, Any]:
    types = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
        for name, (resources, most) in groups.items()
    }
    types[FAKE_HEAD_NODE_TYPE] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "tessera",
        "max_workers": sum(most for _, most in groups.values()),
        "idle_timeout_minutes": idle_s / 60,
        "upscaling_speed": 100,
        "provider": {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "auth": {},
        "available_node_types": types,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "setup_commands": [],
        "initialization_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


def _end_all(mark: str) -> None:
    """Ends every process with the mark; more than once, since one may start another meanwhile."""
    while found := list(_marked(mark)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
