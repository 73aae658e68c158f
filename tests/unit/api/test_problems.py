import importlib
import pkgutil

import pytest

import serve_app.api
from serve_app import errors
from serve_app.api.problems import STATUS, Problems, problem_response, status_of

EXPECTED = {
    "internal-error": 500,
    "bad-request": 400,
    "invalid-parameter": 422,
    "unsupported-image": 415,
    "broken-image": 422,
    "too-large": 413,
    "not-found": 404,
    "wrong-state": 409,
    "idempotency-conflict": 422,
    "quota-exceeded": 429,
    "busy": 429,
    "deadline-exceeded": 504,
    "tile-failed": 500,
    "garbage-tile": 500,
    "replica-lost": 503,
    "blob-failed": 500,
    "blob-missing": 500,
    "blob-corrupt": 500,
    "lease-lost": 500,
    "configuration-error": 500,
    "unsupported-media-type": 415,
    "not-acceptable": 406,
}


def tree(root: type[errors.TesseraError]) -> set[type[errors.TesseraError]]:
    return {root}.union(*(tree(kind) for kind in root.__subclasses__()))


def served() -> set[type[errors.TesseraError]]:
    """Every error that this door can meet: the shared tree, and what the door itself adds."""
    for module in pkgutil.walk_packages(serve_app.api.__path__, "serve_app.api."):
        importlib.import_module(module.name)
    homes = ("serve_app.errors", "serve_app.api.")
    return {kind for kind in tree(errors.TesseraError) if kind.__module__.startswith(homes)}


def test_no_branch_of_the_tree_is_forgotten() -> None:
    assert set(STATUS) == served()
    assert {kind.code: status for kind, status in STATUS.items()} == EXPECTED


def test_a_class_from_elsewhere_has_its_parents_status() -> None:
    class Elsewhere(errors.Busy):
        pass

    assert status_of(Elsewhere("later")) == 429


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda kind: kind.code))
def test_each_document_says_what_the_error_knows(kind: type[errors.TesseraError]) -> None:
    error = kind("What was wrong.", field="steps", allowed="1 to 100", retry_after_s=2.25)
    document = Problems(5).document(error, "id-1")
    assert document.type == f"urn:tessera:problem:{kind.code}"
    assert document.title == kind.title
    assert document.status == STATUS[kind]
    assert document.request_id == "id-1"
    assert (document.field, document.allowed, document.retry_after_s) == ("steps", "1 to 100", 2.25)
    response = problem_response(document)
    assert response.status_code == STATUS[kind]
    assert response.headers["Retry-After"] == "3"


def test_busy_and_lost_say_when_to_retry_even_if_the_error_does_not() -> None:
    for kind in STATUS:
        document = Problems(4.2).document(kind("x"), "id")
        expected = 4.2 if STATUS[kind] in (429, 503) else None
        assert document.retry_after_s == expected


def test_absent_facts_are_left_out_of_the_body() -> None:
    response = problem_response(Problems(5).document(errors.TileFailed("Tile 3 failed."), "id"))
    assert b"field" not in bytes(response.body)
    assert b"retry_after_s" not in bytes(response.body)
    assert "Retry-After" not in response.headers


def test_a_servers_paths_stay_with_the_server() -> None:
    error = errors.ConfigurationError("/srv/secret/tessera.json: broken")
    assert "secret" not in Problems(5).document(error, "id").detail
