"""The parts of the report of an experiment, as the guide asks for them: each makes a document of what a run holds.

| module | holds |
|---|---|
| `design` | what was compared, by which metrics, on which model and scenes |
| `process` | the commands that were run, on which machine, and what went wrong |
| `outcome` | every table and figure |
| `findings` | which scheme is smallest, which most accurate, who pays, what was expected otherwise |
| `conclusions` | what is recommended for whom and why, limits, what to try next |
"""

from collections.abc import Callable
from typing import TypeAlias

from analysis.report.document import Document
from analysis.report.experiment import Experiment
from analysis.report.parts import conclusions, design, findings, outcome, process
from analysis.report.wording import Wording

PartWriter: TypeAlias = "Callable[[Experiment, Wording], Document]"

REPORT_PARTS: dict[str, PartWriter] = {
    "1_design.md": design.document,
    "2_process.md": process.document,
    "3_results/results.md": outcome.document,
    "4_analysis.md": findings.document,
    "5_conclusions.md": conclusions.document,
}
"""By the name of the file, in the order of the report."""

__all__ = ["REPORT_PARTS", "PartWriter"]
