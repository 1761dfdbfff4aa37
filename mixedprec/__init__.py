"""Mixed precision: budgets, the exact solver, policies, plans, and models and files made from them.

| module | holds |
|---|---|
| `budget` | `600MB`, `4.2bpw`, `15%` -> bytes |
| `solver` | one choice per group, least damage within a budget, proven optimal |
| `policies` | budget -> one format per layer; the baselines |
| `plan` | a plan and its file |
| `apply` | an assignment -> the simulated or the packed model |
| `checkpoint` | a model and an assignment -> a file -> the packed model |
| `checkpoint_file` | what a checkpoint's header says; reading it, checked |
| `container` | safetensors, written tensor by tensor with a header of fixed size |
| `atomic` | files that appear complete or not at all |
"""

from mixedprec.apply import apply_assignment, apply_plan, check_assignment, packed, quantized
from mixedprec.atomic import replacing
from mixedprec.budget import format_bytes, parse_budget
from mixedprec.checkpoint import load_quantized, overhead_bytes, read_info, save_quantized
from mixedprec.checkpoint_file import CheckpointInfo
from mixedprec.plan import Plan, load_plan, save_plan, uniform_assignment
from mixedprec.policies import (
    POLICIES,
    Assignment,
    Policy,
    Problem,
    assignment_of,
    inverted,
    optimal,
    optimal_solution,
    random_assignment,
    sensitive,
)
from mixedprec.solver import Choice, Infeasible, Solution, solve

__all__ = [
    "POLICIES",
    "Assignment",
    "CheckpointInfo",
    "Choice",
    "Infeasible",
    "Plan",
    "Policy",
    "Problem",
    "Solution",
    "apply_assignment",
    "apply_plan",
    "assignment_of",
    "check_assignment",
    "format_bytes",
    "inverted",
    "load_plan",
    "load_quantized",
    "optimal",
    "optimal_solution",
    "overhead_bytes",
    "packed",
    "parse_budget",
    "quantized",
    "random_assignment",
    "read_info",
    "replacing",
    "save_plan",
    "save_quantized",
    "sensitive",
    "solve",
    "uniform_assignment",
]
