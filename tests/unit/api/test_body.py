"""Both bodies, and everything that can be wrong with them."""

import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from serve_app.api.body import ALLOWANCE_BYTES
from serve_app.contracts import OutputFormat, Priority, UpscaleParams
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler
from tests.unit.api.conftest import PNG, problem

URL = "/v1/upscale"
FILE = {"image": ("photo.png", PNG)}
ENCODED = base64.b64encode(PNG).decode()
EVERY: dict[str, object] = {
    "model": "fake",
    "scale": 2.5,
    "steps": 3,
    "strength": 0.5,
    "guidance_scale": 2.0,
    "control_scale": 0.25,
    "control_start": 0.125,
    "control_end": 0.75,
    "controls": [{"name": "canny", "scale": 0.5}, {"name": "pose"}],
    "lora": "turbo",
    "lora_scale": 0.875,
    "prompt": "a cat, ünïcode",
    "negative_prompt": "blur",
    "true_cfg_scale": 1.5,
    "seed": 2**63 - 1,
    "output_format": "webp",
    "quality": 55,
    "preset": "photo",
    "fidelity": 0.25,
    "color_fix": "none",
    "denoise": 0.5,
    "bit_depth": 16,
    "color_profile": "srgb",
    "keep_metadata": False,
    "keep_gps": True,
    "max_pixels": 10**9,
    "animated": True,
    "face_safe": True,
}


def part(name: str, content: bytes, filename: str | None = None, boundary: str = "X") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


async def post_raw(http: httpx.AsyncClient, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    return await http.post(URL, content=body, headers=headers)


async def test_a_form_carries_every_parameter(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    fields = {name: str(value) for name, value in EVERY.items()}
    fields["controls"] = json.dumps(EVERY["controls"])
    await http.post(URL, files=FILE, data=fields)
    assert upscaler.requests[0].image == PNG
    assert upscaler.requests[0].params == UpscaleParams.model_validate(EVERY)


async def test_json_carries_every_parameter(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    await http.post(URL, json={"image_base64": ENCODED, **EVERY})
    assert upscaler.requests[0].image == PNG
    assert upscaler.requests[0].params == UpscaleParams.model_validate(EVERY)


def test_every_parameter_is_meant() -> None:
    assert set(EVERY) | {"width", "height"} == set(UpscaleParams.model_fields)


@pytest.mark.parametrize(
    "text",
    [
        ENCODED,
        f"data:image/png;base64,{ENCODED}",
        f"DATA:;BASE64,{ENCODED}",
        "\n".join(ENCODED[i : i + 76] for i in range(0, len(ENCODED), 76)) + "\n",
    ],
    ids=["plain", "data-url", "bare-data-url", "wrapped"],
)
async def test_spellings_of_base64(
    http: httpx.AsyncClient, upscaler: FakeUpscaler, text: str
) -> None:
    response = await http.post(URL, json={"image_base64": text})
    assert response.status_code == 200
    assert upscaler.requests[0].image == PNG


@pytest.mark.parametrize(
    "text",
    ["%%%", ENCODED[:-2] + "A", ENCODED + "é", "data:image/png,abc", "data:no-comma", 7, ["a"]],
)
async def test_bad_base64_names_its_field(http: httpx.AsyncClient, text: object) -> None:
    response = await http.post(URL, json={"image_base64": text})
    assert "base64" in problem(response, 422, "invalid-parameter", "image_base64")["allowed"]


@pytest.mark.parametrize("body", [{}, {"image_base64": None}, {"steps": 3}])
async def test_json_without_a_picture(http: httpx.AsyncClient, body: object) -> None:
    response = await http.post(URL, json=body)
    problem(response, 422, "invalid-parameter", "image_base64")


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"nonsense", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b'"text"', b"null", b"3"),
        b'{"\\udfff": 1}',
        b'{"\xed\xa0\x80": 1}',
        b'["\\ud800"]',
    ],
    ids=repr,
)
async def test_malformed_json(http: httpx.AsyncClient, body: bytes) -> None:
    body = body[:40_000]
    response = await http.post(URL, content=body, headers={"Content-Type": "application/json"})
    problem(response, 400, "bad-request", "body")


async def test_a_json_name_twice(http: httpx.AsyncClient) -> None:
    body = f'{{"image_base64": "{ENCODED}", "steps": 3, "steps": 4}}'
    response = await http.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert problem(response, 422, "invalid-parameter", "steps")["allowed"] == "once"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
async def test_numbers_that_json_does_not_have(http: httpx.AsyncClient, number: str) -> None:
    body = f'{{"image_base64": "{ENCODED}", "scale": {number}}}'
    response = await http.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["field"] in ("scale", "body")


async def test_null_is_absent(http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
    await http.post(URL, json={"image_base64": ENCODED, "steps": None, "seed": None})
    assert upscaler.requests[0].params == UpscaleParams()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("steps", "0", "1 to 100"),
        ("scale", "8.01", "1 to 8"),
        ("strength", "0", "above 0 to 1"),
        ("output_format", "gif", "one of png, jpeg, webp, avif, tiff, jxl"),
        ("seed", "-1", "0 to 9223372036854775807"),
        ("quality", "x", "1 to 100"),
        ("controls", "canny", "a list of at most 8 objects"),
        ("priority", "urgent", "interactive or batch"),
    ],
)
async def test_a_value_out_of_range_names_field_and_range(
    http: httpx.AsyncClient, upscaler: FakeUpscaler, name: str, value: str, allowed: str
) -> None:
    for response in (
        await http.post(URL, files=FILE, data={name: value}),
        await http.post(URL, json={"image_base64": ENCODED, name: value}),
    ):
        assert problem(response, 422, "invalid-parameter", name)["allowed"] == allowed
    assert upscaler.requests == []


async def test_unknown_fields_are_named_in_both_bodies(http: httpx.AsyncClient) -> None:
    form = await http.post(URL, files=FILE, data={"stepz": "3"})
    assert "steps" in problem(form, 422, "invalid-parameter", "stepz")["allowed"]
    body = await http.post(URL, json={"image_base64": ENCODED, "image": "x"})
    problem(body, 422, "invalid-parameter", "image")


async def test_scale_beside_width_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files=FILE, data={"scale": "2", "width": "100"})
    problem(response, 422, "invalid-parameter", "scale")


async def test_empty_form_fields_are_absent_but_empty_prompts_are_prompts(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    empty = dict.fromkeys(UpscaleParams.model_fields, "")
    response = await http.post(URL, files=FILE, data=empty)
    assert response.status_code == 200
    params = upscaler.requests[0].params
    assert params == UpscaleParams(prompt="", negative_prompt="")


async def test_a_field_twice(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files=FILE, data={"steps": ["3", "4"]})
    problem(response, 422, "invalid-parameter", "steps")


async def test_two_pictures(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files=[("image", ("a.png", PNG)), ("image", ("b.png", PNG))])
    problem(response, 422, "invalid-parameter", "image")


async def test_an_image_that_is_no_file(http: httpx.AsyncClient) -> None:
    response = await post_raw(http, part("image", PNG) + b"--X--\r\n")
    problem(response, 422, "invalid-parameter", "image")


async def test_a_parameter_that_is_a_file(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, files={**FILE, "steps": ("steps.txt", b"3")})
    problem(response, 422, "invalid-parameter", "steps")


@pytest.mark.parametrize("body", [part("steps", b"3"), part("image", b"", filename="")])
async def test_no_image(http: httpx.AsyncClient, body: bytes) -> None:
    response = await post_raw(http, body + b"--X--\r\n")
    problem(response, 422, "invalid-parameter", "image")


async def test_an_empty_file_is_left_to_the_judge_of_pictures(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    response = await http.post(URL, files={"image": ("photo.png", b"")})
    problem(response, 415, "unsupported-image", "image")
    assert upscaler.requests[0].image == b""


async def test_text_that_is_not_utf_8(http: httpx.AsyncClient) -> None:
    body = part("image", PNG, "a.png") + part("prompt", b"\xff\xfe") + b"--X--\r\n"
    problem(await post_raw(http, body), 422, "invalid-parameter", "prompt")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        part("image", PNG, "a.png"),  # no closing boundary
        part("image", PNG, "a.png")[:-40],
        b"--X\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--X--\r\n",
        b"--X\r\nBad Header: 1\r\n\r\nx\r\n--X--\r\n",
    ],
)
async def test_malformed_multipart(http: httpx.AsyncClient, body: bytes) -> None:
    problem(await post_raw(http, body), 400, "bad-request", "body")


async def test_multipart_without_boundary(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = await http.post(URL, content=b"x", headers=headers)
    problem(response, 400, "bad-request", "Content-Type")


async def test_a_body_in_many_pieces(http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
    body = part("steps", b"3") + part("image", PNG, "a.png") + b"--X--\r\n"

    async def pieces() -> AsyncIterator[bytes]:
        for i in range(0, len(body), 7):
            yield body[i : i + 7]

    headers = {"Content-Type": "Multipart/Form-Data; boundary=X"}
    response = await http.post(URL, content=pieces(), headers=headers)
    assert response.status_code == 200
    assert upscaler.requests[0].image == PNG
    assert upscaler.requests[0].params.steps == 3


async def test_a_file_named_only_by_rfc_5987(
    http: httpx.AsyncClient, upscaler: FakeUpscaler
) -> None:
    head = b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename*=utf-8''%C3%A4.png\r\n\r\n"
    response = await post_raw(http, head + PNG + b"\r\n--X--\r\n")
    assert response.status_code == 200
    assert upscaler.requests[0].image == PNG


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""]
)
async def test_other_content_types(http: httpx.AsyncClient, kind: str) -> None:
    response = await http.post(URL, content=b"x", headers={"Content-Type": kind})
    document = problem(response, 415, "unsupported-media-type", "Content-Type")
    assert document["allowed"] == "multipart/form-data or application/json"


class TestControlImages:
    """Each control that reads the caller's picture finds it by its name."""

    async def test_both_bodies_carry_them(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler
    ) -> None:
        parts = {"control_image_pose": ("p.png", b"P"), "control_image_my-edges.2": ("e", b"E")}
        await http.post(URL, files=FILE | parts)
        encoded = {"pose": "UA==", "my-edges.2": "data:image/png;base64,RQ=="}
        await http.post(URL, json={"image_base64": ENCODED, "control_images_base64": encoded})
        for request in upscaler.requests:
            assert request.image == PNG
            assert request.control_images == {"pose": b"P", "my-edges.2": b"E"}
        assert len(upscaler.requests) == 2

    async def test_absent_is_none(self, http: httpx.AsyncClient, upscaler: FakeUpscaler) -> None:
        await http.post(URL, files=FILE)
        await http.post(URL, json={"image_base64": ENCODED, "control_images_base64": None})
        assert [request.control_images for request in upscaler.requests] == [{}, {}]

    async def test_a_part_must_be_a_file_and_come_once(self, http: httpx.AsyncClient) -> None:
        name = "control_image_pose"
        text = await http.post(URL, files=FILE, data={name: "x"})
        problem(text, 422, "invalid-parameter", name)
        twice = await http.post(URL, files=[*FILE.items(), (name, ("a", b"")), (name, ("b", b""))])
        problem(twice, 422, "invalid-parameter", name)

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            (["UA=="], "control_images_base64"),
            ("UA==", "control_images_base64"),
            ({"pose": "%"}, "control_images_base64.pose"),
            ({"pose": None}, "control_images_base64.pose"),
        ],
    )
    async def test_json_that_holds_no_pictures(
        self, http: httpx.AsyncClient, given: object, field: str
    ) -> None:
        response = await http.post(
            URL, json={"image_base64": ENCODED, "control_images_base64": given}
        )
        assert "base64" in problem(response, 422, "invalid-parameter", field)["allowed"]

    async def test_each_has_a_pictures_limit(self, http: httpx.AsyncClient) -> None:
        over = b"\0" * 50_001
        form = await http.post(URL, files=FILE | {"control_image_pose": ("p.png", over)})
        problem(form, 413, "too-large", "control_image_pose")
        encoded = {"pose": base64.b64encode(over).decode()}
        body = await http.post(
            URL, json={"image_base64": ENCODED, "control_images_base64": encoded}
        )
        problem(body, 413, "too-large", "control_images_base64.pose")

    async def test_together_they_weigh_at_most_two_pictures(self, http: httpx.AsyncClient) -> None:
        heavy = b"\0" * 50_000
        names = [f"control_image_{n}" for n in range(8)]
        form = await http.post(URL, files=FILE | dict.fromkeys(names, ("p.png", heavy)))
        told = problem(form, 413, "too-large", "image")
        assert told["allowed"] == "at most 50000 bytes a picture, 100000 in all"
        encoded = {name: base64.b64encode(heavy).decode() for name in names}
        body = await http.post(
            URL, json={"image_base64": ENCODED, "control_images_base64": encoded}
        )
        problem(body, 413, "too-large", "image")


async def test_a_fault_inside_the_controls_says_where(http: httpx.AsyncClient) -> None:
    controls = [{"name": "canny"}, {"name": "pose", "scale": 9}]
    response = await http.post(URL, json={"image_base64": ENCODED, "controls": controls})
    document = problem(response, 422, "invalid-parameter", "controls")
    assert document["detail"].startswith("controls.1.scale: ")


class TestLanes:
    @pytest.mark.parametrize("given", ["interactive", "batch"])
    async def test_priority_comes_in_both_bodies(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, given: str
    ) -> None:
        await http.post(URL, files=FILE, data={"priority": given})
        await http.post(URL, json={"image_base64": ENCODED, "priority": given})
        assert [request.priority for request in upscaler.requests] == [given, given]

    async def test_who_says_nothing_waits_and_is_everybody(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler
    ) -> None:
        await http.post(URL, files=FILE, data={"priority": ""})
        await http.post(URL, json={"image_base64": ENCODED, "priority": None})
        lanes = {(request.priority, request.tenant) for request in upscaler.requests}
        assert lanes == {(Priority.INTERACTIVE, "default")}

    async def test_the_tenant_is_a_header(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler
    ) -> None:
        await http.post(URL, files=FILE, headers={"X-Tenant-Id": "team.a-1_B"})
        assert upscaler.requests[0].tenant == "team.a-1_B"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ä".encode(), "a/b"])
    async def test_a_tenants_name_is_harmless(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, given: str | bytes
    ) -> None:
        response = await http.post(URL, files=FILE, headers={"X-Tenant-Id": given})  # type: ignore[dict-item]
        problem(response, 422, "invalid-parameter", "X-Tenant-Id")
        assert upscaler.requests == []


class TestLimit:
    """`settings.images.upload_bytes` is 50,000 in these tests."""

    async def test_a_picture_at_the_limit_passes_and_one_byte_more_does_not(
        self, http: httpx.AsyncClient, upscaler: FakeUpscaler, settings: Settings
    ) -> None:
        limit = settings.images.upload_bytes
        padded = PNG + b"\0" * (limit - len(PNG))
        assert (await http.post(URL, files={"image": ("a.png", padded)})).status_code == 200
        encoded = base64.b64encode(padded).decode()
        assert (await http.post(URL, json={"image_base64": encoded})).status_code == 200
        assert [len(request.image) for request in upscaler.requests] == [limit, limit]

        over = padded + b"\0"
        form = await http.post(URL, files={"image": ("a.png", over)})
        assert problem(form, 413, "too-large", "image")["allowed"] == "at most 50000 bytes"
        body = await http.post(URL, json={"image_base64": base64.b64encode(over).decode()})
        problem(body, 413, "too-large", "image")
        assert len(upscaler.requests) == 2

    async def test_a_declared_length_is_refused_before_reading(
        self, http: httpx.AsyncClient
    ) -> None:
        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("the body was read")
            yield b""

        for kind in ("multipart/form-data; boundary=X", "application/json"):
            headers = {"Content-Type": kind, "Content-Length": "10000000"}
            response = await http.post(URL, content=never(), headers=headers)
            problem(response, 413, "too-large", "image")

    @pytest.mark.parametrize("kind", ["multipart/form-data; boundary=X", "application/json"])
    async def test_an_undeclared_length_is_refused_while_reading(
        self, http: httpx.AsyncClient, kind: str
    ) -> None:
        taken = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal taken
            yield part("image", b"", "a.png")[:-2] if "multi" in kind else b'{"image_base64": "'
            while taken < 50_000_000:
                taken += 10_000
                yield b"A" * 10_000

        response = await http.post(URL, content=endless(), headers={"Content-Type": kind})
        problem(response, 413, "too-large", "image")
        assert taken < 500_000

    async def test_texts_have_an_allowance(self, http: httpx.AsyncClient) -> None:
        longest = await http.post(URL, files=FILE, data={"prompt": "ü" * 4000})
        problem(longest, 422, "invalid-parameter", "prompt")  # read whole; the model takes none
        flood = await http.post(URL, files=FILE, data={"prompt": "x" * (ALLOWANCE_BYTES + 100_000)})
        problem(flood, 413, "too-large", "image")


async def test_a_form_asks_for_formats(http: httpx.AsyncClient) -> None:
    for kind in OutputFormat:
        response = await http.post(URL, files=FILE, data={"output_format": kind.value})
        assert response.headers["Content-Type"] == kind.media_type


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "\ud800"),
        ("image_url", "https://a.example/\udfff"),
        ("controls", [{"name": "\ud800"}]),
        (
            "control_images_base64",
            {"\ud800": ENCODED},
        ),  # ended the process that said what was wrong
    ],
)
@pytest.mark.parametrize("url", [URL, "/v1/plan"])
async def test_lone_surrogates_are_refused_by_name(
    http: httpx.AsyncClient, url: str, name: str, value: object
) -> None:
    body = json.dumps({"image_base64": ENCODED, name: value})
    response = await http.post(url, content=body, headers={"Content-Type": "application/json"})
    problem(response, 422, "invalid-parameter", name)
