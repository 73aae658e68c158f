import pickle
import re

import pytest

from serve_app import errors
from serve_app.errors import TesseraError


def tree(root: type[TesseraError]) -> list[type[TesseraError]]:
    below = [kind for child in root.__subclasses__() for kind in tree(child)]
    return [root, *below]


TREE = [kind for kind in tree(TesseraError) if kind.__module__ == errors.__name__]


def test_the_tree_is_the_one_drawn_at_the_top_of_its_file() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^[ │├└─]+([A-Z]\w+)", errors.__doc__, re.MULTILINE)
    assert sorted(drawn) == sorted(kind.__name__ for kind in TREE)


def test_the_callers_errors_stand_on_one_branch() -> None:
    mendable = {kind.__name__ for kind in TREE if issubclass(kind, errors.RequestError)}
    assert mendable == {
        "RequestError",
        "InvalidParameter",
        "UnsupportedImage",
        "BrokenImage",
        "TooLarge",
        "NotFound",
        "WrongState",
        "IdempotencyConflict",
        "QuotaExceeded",
    }


@pytest.mark.parametrize("kind", TREE)
def test_errors_cross_a_process_border_whole(kind: type[TesseraError]) -> None:
    error = kind("What – was wrong.", field="steps", allowed="1 to 100", retry_after_s=2.5)  # noqa: RUF001
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert vars(copy) == vars(error)
        assert str(copy) == str(error) == error.detail
        assert copy.args == error.args


def test_what_is_no_text_elsewhere_is_spelled_out() -> None:
    """Half a surrogate pair, told through Ray, ended the process that told it."""
    error = TesseraError("a\ud800", field="b\udfff", allowed="c\ud800")
    assert str(error) == error.detail == "a\\ud800"
    assert (error.field, error.allowed) == ("b\\udfff", "c\\ud800")


@pytest.mark.parametrize("kind", TREE)
def test_a_code_names_its_class_whatever_was_derived_from_it(kind: type[TesseraError]) -> None:
    """Ray derives a class of its own from each that it carries, and that one cannot be made like this."""
    derived = type("Carried", (kind,), {"__init__": None})
    assert errors.kind_of(kind.code) is kind
    assert derived in kind.__subclasses__()
    assert errors.kind_of("of-another-version") is TesseraError


@pytest.mark.parametrize("kind", TREE)
def test_facts_are_optional(kind: type[TesseraError]) -> None:
    error = pickle.loads(pickle.dumps(kind("Only this.")))
    assert vars(error) == {
        "detail": "Only this.",
        "field": None,
        "allowed": None,
        "retry_after_s": None,
    }


def test_codes_tell_the_classes_apart() -> None:
    codes = [kind.code for kind in TREE]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    for kind in TREE[1:]:
        if kind is not errors.RequestError:
            dashed = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
            assert kind.code == dashed
            assert kind.title == dashed.replace("-", " ").capitalize()
