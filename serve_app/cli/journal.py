"""What a stopped `tessera upscale` needs to go on: which of its pictures are in which job.

It stands in the output folder, one entry for each command that is not through, and is gone with the last.
It refuses to know servers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serve_app.cli.exits import UsageError
from serve_app.cli.files import write_whole

FILE = ".tessera-job.json"
MOST_PICTURES, MOST_BYTES = 500, 512 * 2**20
"""Of one job: so the first results come while the rest is sent, and little is sent again after a stop. A server
that takes less says so, and is sent halves."""
_VERSION = 1


@dataclass
class Chunk:
    """Some pictures of the command, by their place in it, and the job that they are.

    `key` is chosen before they are sent, so that they are one job however often that is begun; `job` is
    None until the server has answered.
    """

    key: str
    pictures: list[int]
    job: str | None = None


@dataclass
class Journal:
    """The chunks of one command.

    Attributes:
        folder: Where the file is.
        digest: Of the command; another has other chunks.
        server: For who reads the file.
        chunks: In the order of their pictures.
    """

    folder: Path
    digest: str
    server: str
    chunks: list[Chunk] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, digest: str, server: str) -> Journal:
        """Reads what was written by the same command, if there is something.

        Raises:
            UsageError: the file is damaged.
        """
        found = _commands(folder).get(digest)
        try:
            chunks = [Chunk(**chunk) for chunk in found["chunks"]] if found is not None else []
        except (KeyError, TypeError):
            raise _damaged(folder) from None
        return cls(folder, digest, server, chunks)

    def add(self, key: str, pictures: Sequence[int]) -> Chunk:
        """Notes pictures that are about to be sent."""
        self.chunks.append(Chunk(key, list(pictures)))
        return self.chunks[-1]

    def save(self) -> None:
        """Writes it; raises OSError."""
        commands = _commands(self.folder)
        commands[self.digest] = {
            "server": self.server,
            "chunks": [asdict(chunk) for chunk in self.chunks],
        }
        _write(self.folder, commands)

    def remove(self) -> None:
        """Forgets the command; raises OSError."""
        commands = _commands(self.folder)
        if commands.pop(self.digest, None) is not None:
            _write(self.folder, commands)


def divided(wanted: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Groups pictures, which come with their bytes, within what one job shall have."""
    group: list[int] = []
    held = 0
    for place, size in wanted:
        if group and (len(group) == MOST_PICTURES or held + size > MOST_BYTES):
            yield group
            group, held = [], 0
        group.append(place)
        held += size
    if group:
        yield group


def _commands(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FILE).read_text())
        commands = found["commands"]
        if found["version"] != _VERSION or not isinstance(commands, dict):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        raise _damaged(folder) from None
    return commands


def _write(folder: Path, commands: dict[str, Any]) -> None:
    if commands:
        text = json.dumps({"version": _VERSION, "commands": commands})
        write_whole(folder / FILE, text.encode())
    else:
        (folder / FILE).unlink(missing_ok=True)


def _damaged(folder: Path) -> UsageError:
    return UsageError(f"{folder / FILE} cannot be read; without it the pictures are sent anew")
