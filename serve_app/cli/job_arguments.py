"""The arguments of `tessera jobs`. It refuses to know what the commands do."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from serve_app.cli.jobs import (
    cancel_job,
    get_job,
    list_jobs,
    retry_job,
    submit_job,
    watch_job,
)

SERVER_VARIABLE = "TESSERA_SERVER"
DEFAULT_SERVER = "http://127.0.0.1:8000"
_STATUSES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")


def add_jobs(
    commands: Any, epilog: str, add_parameters: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Adds the command and its own commands.

    Args:
        commands: Where to.
        epilog: Stands below each help.
        add_parameters: Adds an upscale's parameters, and what reads them as `params`.
    """
    jobs = commands.add_parser(
        "jobs", help="submit and follow jobs of a server", epilog=epilog, allow_abbrev=False
    )
    below = jobs.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, told: str, command: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = below.add_parser(
            name, help=told, epilog=epilog, allow_abbrev=False
        )
        parser.add_argument(
            "--server",
            metavar="URL",
            default=os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER,
            help=f"${SERVER_VARIABLE}, else {DEFAULT_SERVER}, if absent",
        )
        parser.add_argument("--tenant", metavar="NAME", help="on whose behalf")
        parser.add_argument("--json", action="store_true", help="write JSON to stdout")
        parser.set_defaults(command=command)
        return parser

    _add_submit(add("submit", "send pictures, print the job's id", submit_job), add_parameters)
    listing = add("list", "list jobs, newest first", list_jobs)
    listing.add_argument("--status", choices=_STATUSES, help="only those")
    listing.add_argument("--limit", type=_natural, default=50, metavar="N", help="at most; 50")
    watch = add("watch", "show a job until it has ended", watch_job)
    _add_id(watch)
    _add_watching(watch)
    get = add("get", "print a job, fetch its results", get_job)
    _add_id(get)
    get.add_argument("--items", action="store_true", help="print its pictures, too")
    _add_output(get, "a folder for the results that are there, or FILE.zip")
    _add_id(add("cancel", "give a job up", cancel_job))
    _add_id(add("retry", "try failed and cancelled pictures again", retry_job))


def _add_submit(
    submit: argparse.ArgumentParser, add_parameters: Callable[[argparse.ArgumentParser], None]
) -> None:
    submit.add_argument("inputs", nargs="+", metavar="IN", help="a picture, or a folder of them")
    submit.add_argument(
        "-r", "--recursive", action="store_true", help="descend into folders below a folder"
    )
    submit.add_argument(
        "--idempotency-key", metavar="KEY", help="submitted twice under one key, it is one job"
    )
    submit.add_argument("--webhook-url", metavar="URL", help="told when the job has ended")
    submit.add_argument("--watch", action="store_true", help="go on as `tessera jobs watch`")
    _add_watching(submit)
    add_parameters(submit)


def _add_watching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--after",
        type=_natural,
        metavar="N",
        help="show events from the one after number N; from now on if absent, with --json from the first",
    )
    _add_output(parser, "a folder that results are fetched into as they come")


def _add_output(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("-o", "--output", metavar="OUT", help=told)
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the job's")


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
