"""Deploys the paced application on the Ray of `RAY_ADDRESS`, then keeps telling how many GPU nodes there are.

A process of its own, since a process can be part of one cluster only. Its settings and port are its arguments.
It writes a number a line, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading

import ray
from ray import serve

from serve_app.app import APP_NAME
from serve_app.testing_app import PacedSettings, build_paced_app


def main(settings: str, port: str) -> None:
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed here
    ray.init(log_to_driver=False, configure_logging=False)
    at = {"host": "127.0.0.1", "port": int(port)}
    serve.start(proxy_location="HeadOnly", http_options=at)
    serve.run(build_paced_app(PacedSettings.parse(json.loads(settings))), name=APP_NAME)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.wait(0.5):
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        told.write(f"{sum('GPU' in resources for resources in alive)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
