"""Do cheap scores predict damage? Every score against true damage, on scenes that it was not made from.

| module | holds |
|---|---|
| `truth` | true damage of every layer and format, at the outputs and against ground truth |
| `ranks` | rank correlations with intervals |
| `plans` | plans that scores lead to: regret; whole plans, predicted and measured |
| `stability` | other scenes, views, sizes; probes; the noise floor |
| `attribution` | damage by output, role, block and along depth |
| `rounding_or_bits` | damage beside that of noise of the same norm |
| `run` | all of it |
| `results` | what was found: types, JSON |
| `results_file` | the same, read back from JSON |
| `tables` | the same for people |
| `transfer` | scores and plans of one kind of scenes, judged on another |
| `transfer_view` | the same for people |
"""

from analysis.audit.results import DEFAULTS, Audit, ScoreResult, audit_summary, audit_to_json
from analysis.audit.run import audit

__all__ = ["DEFAULTS", "Audit", "ScoreResult", "audit", "audit_summary", "audit_to_json"]
