"""A sweep as one page to explore, and as pictures for papers."""

from tilewright.sw.sweep.report.write import write_report

__all__ = ["write_report"]
