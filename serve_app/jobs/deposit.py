"""The one way in which bytes become a blob that the store knows of.

The store is told first, then the bytes are written. A sweep removes a file only in the transaction that
forgets its row, so it either comes before both, and the bytes are written anew, or finds the blob wanted.
"""

from __future__ import annotations

import asyncio

from serve_app.jobs.blobs import Blob, Blobs, blob_of
from serve_app.jobs.housekeeping import Housekeeping


async def deposit(store: Housekeeping, blobs: Blobs, data: bytes) -> Blob:
    """Keeps bytes; nobody sweeps them for the grace time, within which something has to refer to them.

    Raises:
        BlobFailed: they cannot be written.
    """
    blob = await asyncio.to_thread(blob_of, data)
    await store.touch_blob(blob.name, blob.size_bytes)
    await blobs.put(data)
    return blob
