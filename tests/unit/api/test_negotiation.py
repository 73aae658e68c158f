import pytest

from serve_app.api.negotiation import Choice, Shape, choose
from serve_app.api.problems import NotAcceptable
from serve_app.contracts import OutputFormat

PNG, JPEG, WEBP = OutputFormat.PNG, OutputFormat.JPEG, OutputFormat.WEBP


@pytest.mark.parametrize(
    ("accept", "shape", "chosen"),
    [
        (None, Shape.PICTURE, None),
        ("", Shape.PICTURE, None),
        ("*/*", Shape.PICTURE, None),
        ("image/*", Shape.PICTURE, None),
        ("image/png", Shape.PICTURE, PNG),
        ("IMAGE/JPEG", Shape.PICTURE, JPEG),
        ("application/json", Shape.JSON, None),
        ("text/event-stream", Shape.EVENTS, None),
        ("text/*", Shape.EVENTS, None),
        ("application/json, image/*;q=0.5", Shape.JSON, None),
        ("application/json;q=0.5, image/*;q=0.6", Shape.PICTURE, None),
        ("application/json, */*", Shape.JSON, None),  # named exactly, at the same weight
        ("text/event-stream;q=0.9, */*;q=0.8", Shape.EVENTS, None),
        ("image/webp;q=0.3, image/jpeg;q=0.7", Shape.PICTURE, JPEG),
        ("image/png;q=0, image/*", Shape.PICTURE, JPEG),
        ("text/html, image/avif, image/webp, */*;q=0.8", Shape.PICTURE, WEBP),
        ("image/*;q=0, application/json;q=0.001", Shape.JSON, None),
        ("*/*;q=0.1, image/*;q=0", Shape.JSON, None),
        ('image/png;level="1";q=0.4, application/json;q=0.3', Shape.PICTURE, PNG),
        ("nonsense, image/jpeg;q=x, application/json", Shape.JSON, None),
        ("image/jpeg;q=7, application/json;q=0.1", Shape.JSON, None),
    ],
)
def test_what_is_chosen(accept: str | None, shape: Shape, chosen: OutputFormat | None) -> None:
    assert choose(accept, None) == Choice(shape, chosen)


def test_the_format_that_was_asked_for_stands() -> None:
    assert choose("image/*", JPEG) == Choice(Shape.PICTURE, JPEG)
    assert choose("image/jpeg;q=0.1, image/png", JPEG) == Choice(Shape.PICTURE, JPEG)
    assert choose("application/json", JPEG) == Choice(Shape.JSON, JPEG)


@pytest.mark.parametrize(
    "accept", ["text/html", "image/gif", "*/*;q=0", "image/png;q=0", "q=1", "image/png;q=nan"]
)
def test_nothing_admitted(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose(accept, None)
    assert caught.value.field == "Accept"
    assert caught.value.allowed == (
        "image/png, image/jpeg, image/webp, image/avif, image/tiff, image/jxl,"
        " application/json, text/event-stream"
    )


def test_an_accept_against_the_format_asked_for() -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose("image/png", JPEG)
    assert caught.value.allowed == "image/jpeg, application/json, text/event-stream"
