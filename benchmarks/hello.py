"""The smallest Ray Serve application: what :mod:`benchmarks.startup` compares Tessera's start against."""

import argparse

import ray
from ray import serve
from starlette.requests import Request


class Hello:
    """Answers every request with one word."""

    def __call__(self, request: Request) -> str:
        """Answer."""
        return "hello"


def main() -> None:
    """Start Ray and Serve on one port, in the foreground, until interrupted."""
    parser = argparse.ArgumentParser(description="A hello-world Ray Serve application.")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(serve.deployment(Hello).bind(), name="hello", blocking=True)


if __name__ == "__main__":
    main()
