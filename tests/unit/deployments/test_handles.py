"""Foreign errors are translated once, here."""

from __future__ import annotations

import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import DeploymentStatusOverview

from serve_app.deployments.handles import accepts, translate
from serve_app.errors import Busy, InvalidParameter, ReplicaLost, TesseraError


def task_error(cause: Exception) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("denoise", "a traceback", cause)


def test_our_own_error_comes_out_of_rays_wrapping() -> None:
    ours = InvalidParameter("scale: 9", field="scale", allowed="1 to 8")
    for wrapped in (task_error(ours), task_error(ours).as_instanceof_cause()):
        assert translate(wrapped) is ours


@pytest.mark.parametrize(
    "lost",
    [
        ray.exceptions.RayActorError(),
        ray.exceptions.ActorDiedError(),
        ray.exceptions.ActorUnavailableError("away", None),
        ray.exceptions.WorkerCrashedError(),
        ray.exceptions.TaskCancelledError(),
        ray.exceptions.NodeDiedError("gone"),
        ray.exceptions.ObjectLostError("00" * 28, None, ""),
        ray.exceptions.OwnerDiedError("00" * 28, None, ""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_dead_replica_is_lost_and_may_be_tried_again(lost: Exception) -> None:
    found = translate(lost)
    assert isinstance(found, ReplicaLost)
    assert type(lost).__name__ in found.detail
    assert found.retry_after_s is not None


def test_an_input_lost_with_its_node_is_lost_for_the_task_that_asked_for_it() -> None:
    for cause in (
        ray.exceptions.ObjectLostError("00" * 28, None, ""),
        ray.exceptions.OwnerDiedError("00" * 28, None, ""),
    ):
        found = translate(task_error(cause))
        assert isinstance(found, ReplicaLost)
        assert type(cause).__name__ in found.detail
        assert found.retry_after_s is not None


def test_an_unavailable_deployment_is_lost() -> None:
    from ray.serve._private.common import DeploymentID

    error = DeploymentUnavailableError(DeploymentID(name="Denoiser"))
    assert isinstance(translate(error), ReplicaLost)


def test_backpressure_is_busy() -> None:
    assert isinstance(translate(BackPressureError(9, 8)), Busy)


def test_anything_else_stays_what_it_is() -> None:
    for error in (ValueError("x"), task_error(ValueError("x")), KeyboardInterrupt()):
        assert translate(error) is error
        assert not isinstance(translate(error), TesseraError)


@pytest.mark.parametrize(
    ("status", "running", "expected"),
    [
        ("UPDATING", 0, False),  # the first replica is still loading
        ("HEALTHY", 1, True),
        ("UNHEALTHY", 1, True),  # another one died
        ("UNHEALTHY", 0, False),
        ("DEPLOY_FAILED", 0, False),
        ("HEALTHY", 0, True),  # scaled to zero
        ("UPSCALING", 0, True),  # on its way from zero
        ("DOWNSCALING", 0, True),
    ],
)
def test_tiles_are_accepted_where_a_replica_runs_or_none_is_needed(
    status: str, running: int, expected: bool
) -> None:
    states = {"RUNNING": running} if running else {"STARTING": 1}
    found = DeploymentStatusOverview(status, "UNSPECIFIED", states, "")
    assert accepts(found) is expected
