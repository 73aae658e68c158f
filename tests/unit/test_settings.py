from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from serve_app.errors import ConfigurationError
from serve_app.settings import JobSettings, Settings


def fields(group: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


FIELDS = dict(fields(Settings))


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def read(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def test_there_is_something_to_check() -> None:
    assert {"model.source", "images.upload_bytes", "requests.timeout_s", "engine.max_batch"} <= set(
        FIELDS
    )


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is_and_has_a_default(name: str) -> None:
    field = FIELDS[name]
    assert field.description, f"{name} has no description"
    assert len(field.description) > 20
    assert field.description.endswith(".")
    assert not field.is_required()


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_can_be_written_down_and_read_back(name: str) -> None:
    default = read(Settings(), name)
    assert read(Settings.parse(nested(name, default)), name) == default


def bounded(kind: str) -> list[str]:
    return [n for n, f in FIELDS.items() if any(hasattr(rule, kind) for rule in f.metadata)]


@pytest.mark.parametrize("name", bounded("gt"))
def test_lower_bounds_that_are_excluded(name: str) -> None:
    (rule,) = [rule for rule in FIELDS[name].metadata if hasattr(rule, "gt")]
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse(nested(name, rule.gt))
    assert caught.value.field == name
    assert caught.value.detail.startswith(f"{name}: ")
    below = [other.lt for other in FIELDS[name].metadata if hasattr(other, "lt")]
    inside = (rule.gt + below[0]) / 2 if below else rule.gt + 1
    assert read(Settings.parse(nested(name, inside)), name) == inside


@pytest.mark.parametrize("name", bounded("ge"))
def test_lower_bounds_that_are_included(name: str) -> None:
    (rule,) = [rule for rule in FIELDS[name].metadata if hasattr(rule, "ge")]
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse(nested(name, rule.ge - 1))
    assert caught.value.field == name
    assert read(Settings.parse(nested(name, rule.ge)), name) == rule.ge


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "soon", None, [5]])
def test_a_bad_value_names_its_field(value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse({"requests": {"timeout_s": value}})
    assert caught.value.field == "requests.timeout_s"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"modle": "mini"}, "modle"),
        ({"engine": {"max_batches": 4}}, "engine.max_batches"),
        ({"engine": {"dtype": "float8"}}, "engine.dtype"),
        ({"engine": 4}, "engine"),
        ({"images": {"upload_bytes": 1.5}}, "images.upload_bytes"),
    ],
)
def test_unknown_names_and_wrong_kinds_are_named(raw: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse(raw)
    assert caught.value.field == name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().model = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings().engine.max_batch = 5  # type: ignore[misc]


def test_other_fields_keep_their_defaults() -> None:
    found = Settings.parse({"engine": {"max_batch": 2}})
    assert found.engine.max_batch == 2
    assert found.engine == Settings().engine.model_copy(update={"max_batch": 2})
    assert found.images == Settings().images


@pytest.mark.parametrize(
    ("database", "blobs", "expected"),
    [
        ("sqlite:///a/b.db", "blobs", ("sqlite:////srv/a/b.db", "/srv/blobs")),
        ("sqlite:////a/b.db", "/blobs", ("sqlite:////a/b.db", "/blobs")),
        ("postgresql://u:p@host/name", "s3://b/p", ("postgresql://u:p@host/name", "s3://b/p")),
    ],
)
def test_relative_places_of_jobs_are_made_absolute(
    database: str, blobs: str, expected: tuple[str, str]
) -> None:
    found = JobSettings(database_url=database, blobs_url=blobs).below(Path("/srv"))
    assert (found.database_url, found.blobs_url) == expected
    assert found.below(Path("/elsewhere")) == found
