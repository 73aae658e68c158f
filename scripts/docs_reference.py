"""Writes the reference from the code that it describes: settings, parameters, HTTP, errors, command line.

A hook of MkDocs; the pages exist only in the site. It refuses to know more than names, types and
descriptions: what has none there has none here.
"""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from serve_app import errors
from serve_app.api import create_api, problems
from serve_app.api.jobs.desk import Desk
from serve_app.cli.arguments import build_parser
from serve_app.contracts import ControlParams, UpscaleParams, allowed_range
from serve_app.settings import JobSettings, PageSettings, Settings
from serve_app.testing import FakeUpscaler

_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars and line breaks within a cell are kept harmless."""
    lines = [head, ("---",) * len(head), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


# Settings and parameters


def accepts(kind: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):
        return accepts(inside[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if inside and (origin is Union or type(None) in inside):
        given = [accepts(part) for part in inside if part is not type(None)]
        return " or ".join(given + ["null"] * (type(None) in inside))
    if origin in (list, tuple):
        return f"list of {accepts(inside[0])}"
    if kind is SecretStr:
        return "secret text"
    return _WORDS.get(kind, "object")


def bounds(field: FieldInfo) -> str:
    """The limits of a number in words."""
    return ", ".join(
        words.format(getattr(rule, name))
        for rule in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(rule, name, None) is not None
    )


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The group that a setting is, or may be."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel)), None)


def default_of(field: FieldInfo) -> str:
    """The default as YAML would have it."""
    if field.default_factory in (dict, list, tuple) or field.default_factory is None:
        value = field.get_default(call_default_factory=True)
    else:
        return ""  # the environment's
    if isinstance(value, dict) and value:
        return "those that are shipped"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value}`"


def groups(kind: type[BaseModel], path: str = "") -> Iterator[str]:
    """The settings of a group, then those of the groups in it."""
    below, rows = [], []
    for name, field in kind.model_fields.items():
        inner = group_of(field)
        if inner is not None:
            below.append((f"{path}{name}", inner))
        if inner is None or field.description:
            limits = ", ".join(part for part in (accepts(field.annotation), bounds(field)) if part)
            rows.append((f"`{name}`", limits, default_of(field), field.description or ""))
    if rows:
        yield table(("setting", "accepts", "default", "what and why"), rows)
    for name, inner in below:
        yield f"## {name}\n\n{inspect.getdoc(inner)}\n"
        yield from groups(inner, f"{name}.")


def settings_page() -> str:
    """All `args` of the application, then those of the page."""
    page = [
        "# Settings\n",
        "The `args` of the application in a Serve config, such as `configs/local.yaml`. An unknown name or a "
        "bad value fails at start with the field's name.\n",
        *groups(Settings),
        "## The page's own\n\nThe `args` of the second application, `build_page_app`.\n",
        *groups(PageSettings),
    ]
    return "\n".join(page)


def parameters_page() -> str:
    """What a request may ask for."""
    rows = [
        (f"`{name}`", allowed_range(UpscaleParams, name), field.description or "")
        for name, field in UpscaleParams.model_fields.items()
    ]
    controls = [
        (f"`{name}`", bounds(field) or "text", field.description or "")
        for name, field in ControlParams.model_fields.items()
    ]
    head = ("parameter", "accepts", "meaning")
    return (
        "# Parameters\n\nEvery one is optional; what is absent is the model's own default. The same names hold "
        "for form fields, JSON, the Ray handle, Python and, with dashes, the [command line](cli.md).\n\n"
        f"{table(head, rows)}\n## controls\n\nThe objects of the list.\n\n{table(head, controls)}"
    )


# Errors and the command line


def errors_page() -> str:
    """The tree, and what each branch is over HTTP."""
    drawn = (errors.__doc__ or "").split("\n\n")[1]
    rows = [
        (
            f"`{kind.__name__}`",
            f"`urn:tessera:problem:{kind.code}`",
            f"{status} {HTTPStatus(status).phrase}",
            (inspect.getdoc(kind) or "").split("\n")[0],
        )
        for kind, status in problems.STATUS.items()
    ]
    fields = [
        (f"`{name}`", f.description or "") for name, f in problems.Problem.model_fields.items()
    ]
    return (
        f"# Errors\n\nOne tree, whoever asks:\n\n```text\n{inspect.cleandoc(drawn)}\n```\n\n"
        "Over HTTP each is a problem document (RFC 9457), `application/problem+json`:\n\n"
        f"{table(('field', 'what'), fields)}\n"
        f"{table(('error', 'type', 'status', 'when'), rows)}"
    )


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def cli_page() -> str:
    """What `--help` prints, of each command."""
    os.environ["COLUMNS"] = "100"
    parts = [f"## {p.prog}\n\n```text\n{p.format_help()}```\n" for p in parsers(build_parser())]
    return "\n".join(["# Command line\n", *parts])


# HTTP


def kind_of(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if options and "type" not in schema:
        return " or ".join(dict.fromkeys(kind_of(option) for option in options))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    name = schema.get("format", schema.get("type", "anything"))
    return name if isinstance(name, str) else " or ".join(name)


def fields_of(schema: dict[str, Any]) -> str:
    """The properties of an object; upscale parameters are named together."""
    named = schema.get("properties", {})
    rows = [
        (f"`{name}`", kind_of(field), str(field.get("description", "")))
        for name, field in named.items()
        if name not in UpscaleParams.model_fields or len(named) <= len(UpscaleParams.model_fields)
    ]
    shared = len(rows) < len(named)
    more = "\nand every [parameter](parameters.md).\n" if shared else ""
    return (table(("field", "type", "meaning"), rows) if rows else f"{kind_of(schema)}\n") + more


def operation_of(method: str, path: str, operation: dict[str, Any]) -> str:
    """One route."""
    parts = [f"### {method.upper()} {path}\n", operation.get("description") or operation["summary"]]
    parameters = [
        (f"`{p['name']}`", p["in"], kind_of(p.get("schema", {})), p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    if parameters:
        parts.append("\n" + table(("parameter", "in", "type", "meaning"), parameters))
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"\nBody `{media}`:\n\n{fields_of(body.get('schema', {}))}")
    answers = [
        (
            status,
            ", ".join(f"`{media}`" for media in answer.get("content", {})),
            answer["description"],
        )
        for status, answer in operation["responses"].items()
    ]
    return "\n".join([*parts, "\n" + table(("answer", "as", "when"), answers)])


def http_page() -> str:
    """All routes, and the objects that they speak of."""

    async def nowhere() -> Any:
        raise NotImplementedError

    desk = Desk(nowhere, None, JobSettings())  # type: ignore[arg-type]
    document = create_api(FakeUpscaler(), Settings(), desk=desk).openapi()
    routes = [
        operation_of(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    objects = [
        f"### {name}\n\n{schema.get('description', '')}\n\n{fields_of(schema)}"
        for name, schema in sorted(document["components"]["schemas"].items())
    ]
    head = (
        "# HTTP\n\nA running server has the same as `/openapi.json`, and to try out at `/docs`. "
        "Any answer may also be one of the [errors](errors.md).\n"
    )
    return "\n".join([head, "## Routes\n", *routes, "## Objects\n", *objects])


PAGES = {
    "settings": settings_page,
    "parameters": parameters_page,
    "http": http_page,
    "errors": errors_page,
    "cli": cli_page,
}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages."""
    for name, written in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=written()))
