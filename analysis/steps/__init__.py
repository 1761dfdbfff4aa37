"""The steps of a run, each from the files of its folder to the next file.

| module | holds |
|---|---|
| `profile` | scenes and a model -> ``profile.h5`` |
| `plan` | ``profile.h5`` and a budget -> ``plan.json`` |
| `plan_rounding` | how its codes will be chosen, and which layers cannot be calibrated |
| `plan_source` | what plans are made from: a profile by one of its scores, or a model without one |
| `evaluation` | ``plan.json`` and scenes -> the three reports |
| `rivals` | formats and further plans that stand beside a plan |
| `experiment` | a run folder, read whole |
| `report` | a run folder -> the report of the experiment |
| `report_charts` | its pictures, drawn anew |
| `checkpoint` | ``plan.json`` or a scheme -> the packed checkpoint |
| `selection` | several plans, measured on scenes of their own: the best is kept |
| `unseen` | scenes to judge on: none that a plan was tuned or selected on |
| `rounding` | the profiled scenes -> the weights of a plan that is not rounded to the nearest |
| `tune` | ``plan.json`` and scenes -> its weights, tuned |
| `onnx_export` | the same -> an ONNX file |
| `pareto` | ``profile.h5`` -> size against damage: ``pareto.json``, ``pareto.png`` |
| `audit` | ``profile.h5`` and scenes -> do its scores predict damage? |
| `transfer` | several runs of one model -> do their scores and plans travel? |
| `reproduction` | VGGT-1B and published test sets -> its own table beside published figures |
| `network` | a checkpoint, a run or a model -> a network that is ready to be shown pictures |
| `reconstruction` | that and pictures -> depth, cameras and points |
| `viewing` | the same twice -> FP32 and plan side by side in a browser |
| `inspect` | ``profile.h5`` -> one layer from close by |
| `formats` | the weight formats, listed |
| `kernels` | a model and pictures -> ``kernels.json``, what its layers take here |
| `forecast` | a model, a plan and a kernel table -> what inference will take |
| `run_folder` | names of the files; reading them back where they belong together |
| `device` | where to compute |
| `view` | a result as people and as machines see it |
"""

from analysis.steps.audit import ATTRIBUTION_CHARTS, AUDIT, AUDIT_CHARTS, audit_view, make_audit
from analysis.steps.checkpoint import make_checkpoint
from analysis.steps.device import pick_device
from analysis.steps.evaluation import make_evaluation, show_evaluation
from analysis.steps.formats import formats_view
from analysis.steps.inspect import inspect_layer
from analysis.steps.onnx_export import make_onnx
from analysis.steps.pareto import make_pareto
from analysis.steps.plan import make_plan_of_run
from analysis.steps.profile import make_profile, profile_view
from analysis.steps.report import make_comparison, make_report
from analysis.steps.reproduction import Protocol, make_reproduction
from analysis.steps.run_folder import CHARTS, PLAN, PROFILE, REPORT, RESULTS
from analysis.steps.transfer import make_transfer
from analysis.steps.tune import make_tuned
from analysis.steps.view import View

__all__ = [
    "ATTRIBUTION_CHARTS",
    "AUDIT",
    "AUDIT_CHARTS",
    "CHARTS",
    "PLAN",
    "PROFILE",
    "REPORT",
    "RESULTS",
    "Protocol",
    "View",
    "audit_view",
    "formats_view",
    "inspect_layer",
    "make_audit",
    "make_checkpoint",
    "make_comparison",
    "make_evaluation",
    "make_onnx",
    "make_pareto",
    "make_plan_of_run",
    "make_profile",
    "make_report",
    "make_reproduction",
    "make_transfer",
    "make_tuned",
    "pick_device",
    "profile_view",
    "show_evaluation",
]
