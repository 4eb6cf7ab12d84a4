"""What a storm has shown, and how it is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 10
"""How many findings of one kind are printed; the table has their number."""


@dataclass
class Report:
    """What one storm has shown: a value for each question, and whether it is as it should be."""

    engine: str
    rows: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def note(self, question: str, value: object, *, is_good: bool = True) -> None:
        """Add a row."""
        self.rows[question] = (str(value), is_good)

    @property
    def is_good(self) -> bool:
        """Whether all of it is as it should be."""
        return all(is_good for _, is_good in self.rows.values())


def show(title: str, findings: Sequence[object]) -> None:
    """Print the first findings for whoever will look into them."""
    for finding in findings[:SHOWN]:
        print(f"{title}: {finding}", file=sys.stderr)


def print_table(reports: Sequence[Report]) -> None:
    """Print all reports side by side, and whether all is well."""
    print(f"\n{'':34}" + "".join(f"{report.engine:>26}" for report in reports))
    for question in reports[0].rows:
        cells = []
        for report in reports:
            value, is_good = report.rows[question]
            cells.append(f"{value if is_good else 'WRONG: ' + value:>26}")
        print(f"{question:34}" + "".join(cells))
    print(f"\n{'all well' if all(report.is_good for report in reports) else 'NOT all well'}")
