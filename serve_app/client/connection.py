"""A way to a running server, and the one seam where the network's errors become the tree's.

It refuses to know what is asked of the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx

from serve_app import errors
from serve_app.contracts import ModelInfo

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 120.0
"""The server breaks its silence every 15 s; a connection silent for this long is dead."""
LONGEST_WAIT_S = 60.0
"""A server that asks for more patience than this before a retry is asked again after this."""


class ServerUnreachable(errors.TesseraError):
    """The server does not answer, or what answers is not Tessera."""

    code = "server-unreachable"
    title = "Server unreachable"


class Connection:
    """A way to a server, and the one seam where the network's errors become the tree's.

    An async context manager.

    Args:
        server: Base URL, such as `http://localhost:8000`.
        transport: For tests; None is the network.
        headers: Sent with each request.
    """

    def __init__(
        self,
        server: str,
        transport: httpx.AsyncBaseTransport | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.http = httpx.AsyncClient(
            base_url=server,
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            transport=transport,
            headers=headers,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def models(self) -> list[ModelInfo]:
        """The server's models, the default first.

        Raises:
            ServerUnreachable: no server, or not one that speaks Tessera.
        """
        with self.translated():
            response = await self.http.get("/v1/models")
            await self.check(response)
            return [ModelInfo.model_validate(found) for found in response.json()["models"]]

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raises what the network and what is no Tessera do as ServerUnreachable."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnreachable(f"{self.server} cannot be reached: {reason}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServerUnreachable(f"{self.server} does not speak Tessera: {error!r}") from error

    async def check(self, response: httpx.Response) -> None:
        """Raises the problem that a response tells, if it tells one."""
        if response.is_error:
            await response.aread()
            self._raise_problem(response)

    def _raise_problem(self, response: httpx.Response) -> NoReturn:
        if "problem+json" not in response.headers.get("Content-Type", ""):
            raise ServerUnreachable(
                f"{self.server} answered {response.status_code}, not as Tessera."
            )
        raise error_of(response.json())


def error_of(document: dict[str, Any]) -> errors.TesseraError:
    """Makes a problem document the error that it describes; its sentence tells all that a person needs."""
    code = document["type"].rsplit(":", 1)[-1]
    kind = errors.kind_of(code)
    detail, allowed = document["detail"], document.get("allowed")
    if allowed is not None and allowed not in detail:
        detail = f"{detail}; allowed: {allowed}"
    return kind(
        f"{detail} (request {document['request_id']})",
        field=document.get("field"),
        allowed=allowed,
        retry_after_s=document.get("retry_after_s"),
    )
