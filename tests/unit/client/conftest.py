"""A server with jobs on loopback, for both clients."""

from collections.abc import Iterator

import pytest

from tests.unit.live_jobs import JobServer, serving_jobs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    with serving_jobs(tmp_path_factory.mktemp("server")) as found:
        yield found
