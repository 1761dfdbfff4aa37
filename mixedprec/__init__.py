"""Mixed precision: budgets, the exact solver, policies, plans, and models and files made from them.

| module | holds |
|---|---|
| `budget` | `600MB`, `4.2bpw`, `15%`, the name of a scheme -> how large a file may be |
| `palette`, `constraints` | which formats a plan may use, everywhere and layer by layer |
| `request` | all that a user asks of a plan, as typed values |
| `evidence` | bytes and expected damage of every layer and format |
| `data_free` | the same without a profile, a prior from shapes and weights |
| `search_space` | all plans that are allowed |
| `resolve` | a request, evidence and a model brought together, once |
| `planner` | a resolved request and bytes -> a plan |
| `solver` | one choice per group, least damage within a budget, proven optimal |
| `limits` | the same within several limits at once: bytes, time, memory |
| `timing` | limits on time and memory; what every way to run a layer takes |
| `joint` | the same with what groups do to each other, within a proven distance of the least damage |
| `policies` | how bytes become one format per layer, in one registry |
| `baselines` | what plans are judged against: rules of thumb, chance, the wrong order |
| `comparison` | a plan beside what else could be made of its bytes |
| `alternatives` | what leaving out heads would buy |
| `plan` | a plan and its file |
| `execution` | which layers of it keep floating-point activations where it runs in whole numbers |
| `apply` | an assignment -> the simulated or the packed model |
| `rounding` | the weights of an assignment, rounded with what is known of the layers' inputs |
| `given_biases` | biases for layers without one, that a rounding asks for |
| `rounding_in_passes` | the same for some layers at a time, each kept on disk as it is done |
| `rounding_by_workers` | the same among workers |
| `rounding_in_sequence` | for what the quantised layers before leave, one after the other |
| `tuning` | the same weights, learned under the outputs of FP32 |
| `checkpoint` | a model and an assignment -> a file -> the packed model |
| `checkpoint_file` | what a checkpoint's header says; reading it, checked |
| `container` | safetensors, written tensor by tensor with a header of fixed size |
"""

from mixedprec.apply import (
    apply_assignment,
    apply_plan,
    check_assignment,
    check_plan,
    packed,
    packed_with,
    quantized,
    quantized_weights,
)
from mixedprec.baselines import baselines, inverted, random_assignment
from mixedprec.budget import Budget, format_bytes, parse_budget, read_budget
from mixedprec.checkpoint import check_plan_size, load_quantized, overhead_bytes, read_info, save_quantized
from mixedprec.checkpoint_file import CheckpointInfo
from mixedprec.comparison import Comparison, comparisons
from mixedprec.constraints import Constraints, parse_constraints
from mixedprec.data_free import data_free
from mixedprec.evidence import Evidence
from mixedprec.joint import solve_jointly
from mixedprec.palette import FormatChoice, parse_formats
from mixedprec.plan import Plan, load_plan, save_plan, uniform_assignment
from mixedprec.planner import Planned, make_plan, planned, replanned, solve_plan
from mixedprec.policies import (
    POLICIES,
    SOLVED,
    Assignment,
    Policy,
    Problem,
    assignment_of,
    joint_solution,
    optimal,
    optimal_solution,
    sensitive,
)
from mixedprec.request import Request, parse_request
from mixedprec.resolve import Resolved, resolve
from mixedprec.solver import Choice, Infeasible, Solution, solve

__all__ = [
    "POLICIES",
    "SOLVED",
    "Assignment",
    "Budget",
    "CheckpointInfo",
    "Choice",
    "Comparison",
    "Constraints",
    "Evidence",
    "FormatChoice",
    "Infeasible",
    "Plan",
    "Planned",
    "Policy",
    "Problem",
    "Request",
    "Resolved",
    "Solution",
    "apply_assignment",
    "apply_plan",
    "assignment_of",
    "baselines",
    "check_assignment",
    "check_plan",
    "check_plan_size",
    "comparisons",
    "data_free",
    "format_bytes",
    "inverted",
    "joint_solution",
    "load_plan",
    "load_quantized",
    "make_plan",
    "optimal",
    "optimal_solution",
    "overhead_bytes",
    "packed",
    "packed_with",
    "parse_budget",
    "parse_constraints",
    "parse_formats",
    "parse_request",
    "planned",
    "quantized",
    "quantized_weights",
    "random_assignment",
    "read_budget",
    "read_info",
    "replanned",
    "resolve",
    "save_plan",
    "save_quantized",
    "sensitive",
    "solve",
    "solve_jointly",
    "solve_plan",
    "uniform_assignment",
]
