"""The documentation lists the metrics of the table, with the same types and labels."""

from __future__ import annotations

import re
from pathlib import Path

from edgeproxy.control.observe.cluster_metrics import CLUSTER_METRICS
from edgeproxy.control.observe.metric_table import (
    BACKEND_LABELS,
    BACKEND_METRICS,
    PROCESS_METRICS,
    Kind,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "observability.md"
ROW = re.compile(r"\| (`edgeproxy_[^|]*) \| (\w+) \| ([^|]*) \| [^|]+ \|")


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of each metric in the document, by name."""
    found = {}
    for names, kind, labels in ROW.findall(DOCUMENT.read_text(encoding="utf-8")):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = kind, tuple(re.findall(r"`(\w+)`", labels))
    return found


def test_the_document_has_each_metric_with_its_type_and_labels() -> None:
    rows = [
        (metric.name_on_page, metric.kind, metric.labels)
        for metric in (*PROCESS_METRICS, *CLUSTER_METRICS)
    ]
    rows += [
        (metric.name_on_page, metric.kind, BACKEND_LABELS + metric.labels)
        for metric in BACKEND_METRICS
    ]
    # The page shows an info metric as a gauge whose value is 1.
    shown = {
        name: (Kind.GAUGE if kind is Kind.INFO else kind, labels) for name, kind, labels in rows
    }
    assert documented() == shown


def test_every_metric_has_one_row() -> None:
    names = [metric.name for metric in (*PROCESS_METRICS, *CLUSTER_METRICS)]
    names += [metric.name for metric in BACKEND_METRICS]
    assert len(set(names)) == len(names)
