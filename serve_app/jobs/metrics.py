"""What an operator watches of the store, in Prometheus' words; the same from every process that reads it.

It refuses to know how numbers are fetched by a monitor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve_app.jobs.records import StoreCounts

_BY_STATUS = {
    "items": ("tessera_job_items", "Pictures of jobs that are kept, by status."),
    "jobs": ("tessera_jobs", "Jobs that are kept, by status."),
    "deliveries": ("tessera_job_webhook_messages", "Messages to webhooks, by status."),
}
_SINGLE = {
    "oldest_queued_s": (
        "tessera_job_oldest_queued_seconds",
        "Age of the picture that has waited longest; 0 where none waits.",
    ),
    "attempts": ("tessera_job_attempts", "Attempts at pictures of jobs that are kept."),
    "checkpoint_hits": (
        "tessera_job_checkpoint_hits",
        "Tiles that were read instead of computed again, ever.",
    ),
}


class StoreCollector(Collector):
    """Gives one reading of the store to a registry.

    Args:
        counts: The reading.
    """

    def __init__(self, counts: StoreCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        for field, (name, told) in _BY_STATUS.items():
            family = GaugeMetricFamily(name, told, labels=["status"])
            found: Mapping[str, int] = getattr(self._counts, field)
            for status, count in found.items():
                family.add_metric([status], count)
            yield family
        for field, (name, told) in _SINGLE.items():
            yield GaugeMetricFamily(name, told, value=getattr(self._counts, field))
