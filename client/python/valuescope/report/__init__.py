"""The report of a value study: one HTML file that explains itself, and its three main findings as sentences.

place = vs.study_report(client.read_artifact(name), "report.html")
print(*vs.study_findings(client.read_artifact(name)), sep="\\n")
"""

from __future__ import annotations

from .findings import findings
from .page import Results, study_page, study_report, to_results

__all__ = ["study_findings", "study_page", "study_report"]


def study_findings(results: Results) -> list[str]:
    """The three main findings of a study with their uncertainty, as plain text.

    Args:
        results: as of `study_report`.
    """
    return findings(to_results(results))
