"""A web site on loopback that does as it is told, with a certificate of its own authority; for tests."""

from __future__ import annotations

import asyncio
import datetime
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serve_app.fetch.addresses import Address, Network, objection
from serve_app.fetch.wire import Internet

NAME = "pictures.example"
OPEN = "127.0.0.1"
"""The one loopback address that tests take for public."""


class Site:
    """Answers by path, from raw bytes; remembers what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Sequence[bytes]] = {}
        self.pause_s = 0.0
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.gone = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends a page in its pieces, with a pause after each, and hangs up."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            told = re.search(r"(?i)content-length: (\d+)", head)
            self.bodies.append(await reader.readexactly(int(told[1]) if told else 0))
            page = self.pages[head.split()[1]]
            for piece in [page] if isinstance(page, bytes) else page:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(self.pause_s)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.gone.set()
            writer.close()


def page(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; a header's underscores become hyphens. Its length is told unless it is given."""
    told = {"Content-Length": str(len(body))} | {n.replace("_", "-"): v for n, v in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{n}: {v}" for n, v in told.items() if v), "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def listening(
    address: str = OPEN, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Site]:
    """A site at an address."""
    site = Site()
    server = await asyncio.start_server(site.serve, address, port, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()


def internet(
    *answers: Sequence[str], trust: ssl.SSLContext | None = None, open_to: str = OPEN
) -> tuple[Internet, list[str]]:
    """An internet whose look-ups give these answers in turn, the last for ever; and what was looked up."""
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ip_address(text) for text in answers[min(len(asked), len(answers)) - 1]]

    def judge(address: Address, denied: Sequence[Network]) -> str | None:
        return None if address == ip_address(open_to) else objection(address, denied)

    return Internet(look_up, judge, trust or ssl.create_default_context()), asked


def tls_for(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A certificate for these names: the server's side, and a client's that believes nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = folder / "site.pem"
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    pem.write_bytes(private + certificate.public_bytes(encoding))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=str(pem))
    return server, client
