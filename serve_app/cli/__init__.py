"""The command line's door: `tessera upscale`, `tessera jobs`, `tessera models` and `tessera inspect`.

It translates arguments to `UpscaleRequest`s and results to files and exit codes, and refuses to know how
a picture is upscaled.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from serve_app.cli.arguments import build_parser
from serve_app.cli.exits import Exit, UsageError
from serve_app.client import ServerUnreachable
from serve_app.errors import TesseraError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; None takes the process's own.

    Returns:
        The exit code; `cli.exits.Exit` says what each means.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return int(asyncio.run(arguments.command(arguments)))
    except UsageError as error:
        return _fail(str(error), Exit.USAGE)
    except ServerUnreachable as error:
        return _fail(error.detail, Exit.UNREACHABLE)
    except TesseraError as error:
        return _fail(error.detail, Exit.FAILED)
    except ModuleNotFoundError as error:
        wanted = "pip install 'tessera-upscaler[serve]'"
        return _fail(f"without --server this needs {error.name}: {wanted}", Exit.USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", Exit.INTERRUPTED)


def _fail(message: str, code: Exit) -> int:
    print(f"tessera: {message}", file=sys.stderr)
    return int(code)
