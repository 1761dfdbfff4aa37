"""A run folder, read whole, as far as it goes: what is not there or not of this run is named with its remedy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analysis.audit.attribution import ClassShares, class_shares
from analysis.audit.results_file import audit_from_values
from analysis.audit.transfer import Transfer
from analysis.audit.transfer_view import transfer_from_values
from analysis.evaluation.depth_maps import load_maps
from analysis.evaluation.results import Evaluation
from analysis.evaluation.results_file import from_json
from analysis.evaluation.verdict import verdict
from analysis.inspection.layer import Inspection
from analysis.inspection.results_file import inspection_from_values
from analysis.report.experiment import Absent, AuditSummary, Experiment, ParetoPoint, ParetoSummary, ScoreSummary
from analysis.search.pareto import pareto_from_values
from analysis.search.time_front import TimeFront
from analysis.steps.run_folder import DEPTH_MAPS, PLAN, PROFILE, RESULTS, plan_of
from mixedprec import Plan, load_plan
from sensitivity import Profile, open_profile
from vggtkit.core.command_log import read_log
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.core.locks import LOCK
from vggtkit.core.program import command
from vggtkit.core.seal import SEAL, is_sealed

PARETO, AUDIT, TRANSFER = "pareto.json", "score_audit.json", "transfer.json"
INSPECTIONS = "layer-*.json"
NO_FILE = "no such file"
MOST_BYTES = 2**28
"""Of a JSON file; those of VGGT-1B have a tenth of it."""

Read = TypeVar("Read")


def read_evaluation(run: Path) -> Evaluation:
    """The evaluation of a run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path, remedy = run / RESULTS, f"make it with `{command('evaluate', '--run', run)}`"
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}; {remedy}") from error


def read_experiment(run: Path, evaluation: Evaluation | None = None) -> Experiment:
    """Everything that the folder of a run holds.

    Args:
        run: the folder.
        evaluation: of it, where it has been read already.

    Raises:
        InputError: nothing of a run is in the folder that can be read.
    """
    reader = _Reader(run)
    profile = reader.attempt(PROFILE, lambda: open_profile(run / PROFILE), "profile")
    plan = reader.attempt(PLAN, lambda: _plan(run, profile), "plan")
    if evaluation is None:
        if profile is None and plan is None:
            _check_there(reader)
            evaluation = read_evaluation(run)
        else:
            evaluation = reader.attempt(RESULTS, lambda: _evaluation_of(run, profile), "evaluate")
    if evaluation is None or "depth" in evaluation.outputs:
        maps = reader.attempt(DEPTH_MAPS, lambda: load_maps(run / DEPTH_MAPS, _given(evaluation)), "evaluate")
    else:
        maps = None
    pareto = reader.attempt(PARETO, lambda: _pareto(_json_of(run / PARETO, profile, "facts")), "pareto")
    audit = reader.attempt(AUDIT, lambda: _audit(_json_of(run / AUDIT, profile, "provenance"), profile), "audit")
    evaluated = evaluation.plan if evaluation else None
    if plan is not None and evaluated is not None and evaluated.size_bytes != plan.size_bytes:
        reader.miss(RESULTS, f"of another plan than {PLAN} holds now", "evaluate")
    return Experiment(
        run, profile, plan, evaluation, verdict(evaluation) if evaluation else None, maps, pareto, audit,
        _transfer(reader, profile), _inspections(reader, profile), read_log(run), _files(run), tuple(reader.absent),
    )  # fmt: skip


def _check_there(reader: _Reader) -> None:
    """Refuse a folder that has neither results nor anything else of a run."""
    if (reader.run / RESULTS).is_file():
        return
    damaged = [f"{each.reason}; make it with `{each.command}`" for each in reader.absent if each.reason != NO_FILE]
    begin = command("profile", "--run", reader.run)
    raise InputError("; ".join(damaged) or f"{reader.run}: nothing of a run is there; begin with `{begin}`")


class _Reader:
    """Reads files of a run, and remembers those that it could not."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.absent: list[Absent] = []

    def miss(self, name: str, reason: str, *made_by: str) -> None:
        """Remember that a file is not there, why, and the command that makes it."""
        run = () if "--transfer" in made_by else ("--run", str(self.run))
        self.absent.append(Absent(name, reason, command(*made_by, *run)))

    def attempt(self, name: str, read: Callable[[], Read], *made_by: str) -> Read | None:
        """What is read; None, and remembered, where it cannot be."""
        if not (self.run / name).is_file():
            self.miss(name, NO_FILE, *made_by)
            return None
        try:
            return read()
        except (InputError, ValueError, OSError, KeyError, TypeError, AttributeError, OverflowError) as error:
            self.miss(name, escape(" ".join(str(error).split())), *made_by)
            return None


def _transfer(reader: _Reader, profile: Profile | None) -> Transfer | None:
    """Scores and plans on other scenes; nothing is missed where nobody asked for it."""
    path = reader.run / TRANSFER
    if not path.is_file():
        return None
    again = ("audit", "--transfer", str(reader.run), "OTHER_RUN")
    return reader.attempt(TRANSFER, lambda: transfer_from_values(_json_of(path, profile, "provenance")), *again)


def _inspections(reader: _Reader, profile: Profile | None) -> tuple[Inspection, ...]:
    """The layers that were looked at from close by."""

    def read(path: Path) -> Inspection | None:
        again = ("inspect", path.stem.removeprefix("layer-"))
        return reader.attempt(path.name, lambda: inspection_from_values(_json_of(path, profile, "provenance")), *again)

    return tuple(filter(None, map(read, sorted(reader.run.glob(INSPECTIONS)))))


def _evaluation_of(run: Path, profile: Profile | None) -> Evaluation:
    evaluation = read_evaluation(run)
    _check_model(run / RESULTS, evaluation.provenance.get("model_fingerprint"), profile)
    return evaluation


def _plan(run: Path, profile: Profile | None) -> Plan:
    return load_plan(run / PLAN) if profile is None else plan_of(run, profile)


def _given(evaluation: Evaluation | None) -> Evaluation:
    if evaluation is None:
        raise InputError("the evaluation that it belongs to is not there")
    return evaluation


def _json_of(path: Path, profile: Profile | None, place: str) -> dict[str, Any]:
    """A JSON object that says, at a place, that it is of this run's model."""
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes, more than any such file has")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a JSON object")
    if not is_sealed(values):
        raise InputError(f"{path}: its {SEAL} is not that of its content")
    facts = values.get(place)
    if not isinstance(facts, dict):
        raise InputError(f"{path}: does not say where it comes from")
    _check_model(path, facts.get("model_fingerprint"), profile)
    return values


def _check_model(path: Path, fingerprint: object, profile: Profile | None) -> None:
    expected = profile.facts["model_fingerprint"] if profile else fingerprint
    if fingerprint != expected:
        raise InputError(f"{path}: of the model {fingerprint}, the profile is of {expected}")


def _files(run: Path) -> dict[str, int]:
    """Bytes of the files that lie in the folder itself."""
    files = (path for path in run.iterdir() if path.is_file() and path.name != LOCK)
    return {path.name: path.stat().st_size for path in files}


def _pareto(values: Mapping[str, Any]) -> ParetoSummary:
    points = [
        ParetoPoint(
            str(each["kind"]), str(each["title"]), int(each["size_bytes"]), _number(each["predicted"]),
            None if each.get("measured") is None else _number(each["measured"]),
        )
        for each in values["points"]
    ]  # fmt: skip
    whole = _if_whole(lambda: pareto_from_values(values))
    timed = _if_whole(lambda: TimeFront.from_values(values))
    return ParetoSummary(tuple(points), tuple(map(str, values["beating_a_plan"])), whole, timed)


def _if_whole(read: Callable[[], Read]) -> Read | None:
    """What is read; None of a file that has less."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _audit(values: Mapping[str, Any], profile: Profile | None) -> AuditSummary:
    scores = []
    for key, score in values["scores"].items():
        agreements = list(score["agreement"].values())
        spearman = _number(agreements[0]["spearman"]["value"]) if agreements else math.nan
        low, high = map(_number, score["regret_interval"])
        scores.append(ScoreSummary(str(key), _number(score["passes"]), spearman, _number(score["regret"]), low, high))
    formats = tuple(map(str, values["formats"]))
    layers = {layer.name: layer for layer in profile.layers} if profile else {}
    classes = _token_classes(values["measured"], {name: layer.block for name, layer in layers.items()})
    whole = _if_whole(lambda: audit_from_values(values, layers))
    return AuditSummary(int(values["layers"]), formats, str(values["favoured"]), tuple(scores), classes, whole)


def _token_classes(measured: Mapping[str, Any], blocks: Mapping[str, str]) -> tuple[ClassShares, ...]:
    """Of an audit's file; nothing where its layers are not those of the profile or have no classes of tokens."""
    trunk = list(map(str, measured["trunk"]))
    if not trunk or not blocks.keys() >= set(trunk):
        return ()
    parts = {str(name): np.array(rows, dtype=np.float64) for name, rows in measured["token_classes"].items()}
    return tuple(class_shares([blocks[name] for name in trunk], parts, list(map(str, measured["token_class_formats"]))))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
