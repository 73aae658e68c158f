import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import Settings


def test_off_and_strict_by_default() -> None:
    found = Settings().fetch
    assert (found.enabled, found.allow_http, found.redirects) == (False, False, 3)
    assert found.ports == (443, 80)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_hosts", ["Example.org"]),
        ("allowed_hosts", ["https://example.org"]),
        ("allowed_hosts", ["*"]),
        ("allowed_hosts", ["a.*.org"]),
        ("denied_networks", ["10.0.0.1/8"]),
        ("denied_networks", ["example.org"]),
        ("ports", [0]),
        ("ports", [65536]),
    ],
)
def test_a_bad_entry_is_named_at_start(name: str, value: list[object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.parse({"fetch": {name: value}})
    assert caught.value.field == f"fetch.{name}.0"


def test_lists_are_read() -> None:
    given = {"allowed_hosts": ["*.example.org", "1.1.1.1"], "denied_networks": ["2001:470::/32"]}
    found = Settings.parse({"fetch": given}).fetch
    assert found.allowed_hosts == tuple(given["allowed_hosts"])
    assert found.denied_networks == tuple(given["denied_networks"])
