"""Durable jobs: where they are kept, who runs them, and how much of them a tenant may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field

from serve_app.settings.group import Group
from serve_app.settings.webhooks import WebhookSettings


class JobSettings(Group):
    """Durable jobs. Relative places are the starting process's own: see `below`."""

    enabled: bool = Field(
        True, description="Offer jobs; they need a place on a disk or a database."
    )
    database_url: str = Field(
        "sqlite:///.tessera/jobs.db",
        description="`sqlite:///FILE` on one machine; `postgresql://USER:PASSWORD@HOST/NAME` on a cluster.",
    )
    blobs_url: str = Field(
        ".tessera/blobs",
        description="Where sources, tiles and results are: a folder, or `s3://BUCKET/PREFIX` on a cluster.",
    )
    blobs_options: dict[str, Any] = Field(
        default_factory=dict, description="For the file system behind `blobs_url`: endpoint, keys."
    )
    runner_replicas: int = Field(
        1, ge=1, description="JobRunner replicas; one feeds several denoisers."
    )
    runner_cpus: float = Field(
        0.1,
        ge=0,
        description="CPUs reserved for a runner; it passes messages and compresses tiles.",
    )
    items_at_once: int = Field(
        2,
        ge=1,
        description="Items that a runner works on: one is denoised while another is decoded.",
    )
    item_timeout_s: float = Field(
        3600,
        gt=0,
        description="Seconds for one attempt at one item; a large picture on a CPU takes minutes.",
    )
    most_attempts: int = Field(
        3, ge=1, description="Attempts at an item; one that kills its runner as often is given up."
    )
    lease_s: float = Field(
        30, gt=0, description="Seconds after which a silent runner is taken for dead."
    )
    heartbeat_s: float = Field(
        1,
        gt=0,
        description="Seconds between renewals, at most a third of `lease_s`; so soon cancelled items stop.",
    )
    poll_s: float = Field(
        0.5,
        gt=0,
        description="Seconds between looks for work, or for events that followers wait for.",
    )
    items_per_job: int = Field(10_000, ge=1, description="Pictures of one job at most.")
    upload_bytes: int = Field(
        4 * 2**30, gt=0, description="Bytes of one submission, all files together, unpacked."
    )
    tenant_jobs: int | None = Field(
        1000, ge=1, description="Unfinished jobs of one tenant; null is no bound."
    )
    tenant_items: int | None = Field(
        100_000, ge=1, description="Unfinished items of one tenant; null is no bound."
    )
    tenant_pixels: int | None = Field(
        None, ge=1, description="Pixels of a tenant's unfinished results; null is no bound."
    )
    retention_s: float = Field(
        7 * 86400, gt=0, description="Seconds that an ended job and its results are kept."
    )
    retention_bytes: int | None = Field(
        None, ge=1, description="Bytes of all blobs; above, the jobs that ended first go early."
    )
    sweep_s: float = Field(300, gt=0, description="Seconds between sweeps, by one process of all.")
    orphan_grace_s: float = Field(
        3600,
        gt=0,
        description="Seconds that a blob nobody refers to is left alone: it may be on its way in.",
    )

    imports: bool = Field(
        False,
        description="Let jobs take pictures under `imports/TENANT/` of `blobs_url`; for trusted tenants.",
    )
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)

    def below(self, folder: Path) -> Self:
        """These settings with absolute places: replicas have other working directories.

        Args:
            folder: In which relative places lie.
        """
        database, blobs = self.database_url, self.blobs_url
        kind, mark, file = database.partition(":///")
        if mark and kind.startswith("sqlite"):
            database = f"{kind}{mark}{folder / file}"
        if "://" not in blobs:
            blobs = str(folder / blobs)
        return self.model_copy(update={"database_url": database, "blobs_url": blobs})
