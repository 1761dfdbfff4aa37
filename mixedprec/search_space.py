"""All plans that are allowed: the formats of every layer, and the layers that share one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mixedprec.constraints import common_formats
from mixedprec.evidence import Evidence
from mixedprec.joint import damage_together
from mixedprec.policies import Assignment, Problem, Timed
from mixedprec.solver import Choice
from mixedprec.timing import TimedExecution, Timing
from vggtkit.core.arrays import Array
from vggtkit.quant import Layer


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen, and what each choice costs and does.

    Attributes:
        evidence: bytes and damage of the layers.
        allowed: formats of every layer, by its name.
        groups: names of the layers that must share a format; no layer is in two.
        coupling: how far damage counts what layers do to each other, see `mixedprec.joint`; 0 sums over the layers.
        timing: what ways to run the layers take, where time or memory are limited.

    Raises:
        InputError: the layers of a group have no format in common.
    """

    evidence: Evidence
    allowed: Mapping[str, tuple[str, ...]]
    groups: Sequence[tuple[str, ...]] = field(default_factory=tuple)
    coupling: float = 0.0
    timing: Timing | None = None

    @staticmethod
    def unconstrained(evidence: Evidence, palette: Sequence[str]) -> SearchSpace:
        """Every layer in any format of a palette."""
        return SearchSpace(evidence, {layer.name: tuple(palette) for layer in evidence.layers})

    def problem(self, layer_budget: int) -> Problem:
        """The problem for a policy; a group stands there once, under the name of its first layer."""
        layers, choices, changes = self._items
        return Problem(layers, choices, layer_budget, changes, self._timed(choices, changes))

    def _timed(self, choices: Mapping[str, tuple[Choice, ...]], changes: Mapping[str, Array]) -> Timed | None:
        """The same formats, each in every way that its layers run in."""
        timing = self.timing
        if timing is None:
            return None
        rows = {layer.name: row for row, layer in enumerate(self.evidence.layers)}
        members = {group[0]: group for group in self.groups}
        several: dict[str, tuple[Choice, ...]] = {}
        signs: dict[str, Array] = {}
        for name, of_formats in choices.items():
            group = [rows[member] for member in members.get(name, (name,))]
            ways = [self._ways(choice, group, timing) for choice in of_formats]
            several[name] = tuple(way for of_format in ways for way in of_format)
            if name in changes:
                signs[name] = np.repeat(changes[name], [len(of_format) for of_format in ways], axis=0)
        return Timed(several, signs, timing.time_room, timing.memory_room)

    def _ways(self, choice: Choice, rows: Sequence[int], timing: Timing) -> list[Choice]:
        """One format in every way that all of these layers run in; in their only one where they have none in common."""
        layers = [self.evidence.layers[row] for row in rows]
        sizes = [self.evidence.of_format(row, choice.key)[0] for row in rows]
        of_layer = [timing.ways(layer, choice.key, size) for layer, size in zip(layers, sizes, strict=True)]
        known = [{way.execution for way in ways} for ways in of_layer]
        common = [way.execution for way in of_layer[0] if all(way.execution in ways for ways in known)] or [""]
        options = []
        for execution in common:
            taken = [timing.way(layer, choice.key, size, execution) for layer, size in zip(layers, sizes, strict=True)]
            of_inputs = math.fsum(
                self.evidence.input_damage_of(row, way.execution) for row, way in zip(rows, taken, strict=True)
            )
            options.append(
                replace(
                    choice, damage=choice.damage + of_inputs, input_damage=of_inputs, execution=execution,
                    nanoseconds=sum(way.nanoseconds for way in taken),
                    memory_bytes=sum(way.memory_bytes for way in taken),
                )
            )  # fmt: skip
        return _worth_taking(options, by_memory=timing.memory_room is not None)

    def ways_of(self, assignment: Assignment, executions: Assignment) -> list[TimedExecution]:
        """How every layer runs; there must be a timing."""
        assert self.timing is not None
        sizes = self.layer_bytes(assignment)
        return [
            self.timing.way(layer, assignment[layer.name], sizes[layer.name], executions.get(layer.name, ""))
            for layer in self.evidence.layers
        ]

    @cached_property
    def _items(self) -> tuple[list[Layer], dict[str, tuple[Choice, ...]], dict[str, Array]]:
        """What is chosen for: single layers and groups, the choices of each, and what these do with their signs."""
        rows = {layer.name: row for row, layer in enumerate(self.evidence.layers)}
        followers = {name for group in self.groups for name in group[1:]}
        members = {group[0]: group for group in self.groups}
        layers, choices, changes = [], {}, {}
        for layer in self.evidence.layers:
            if layer.name in followers:
                continue
            group = members.get(layer.name, (layer.name,))
            keys = common_formats(group, self.allowed)
            layers.append(replace(layer, weights=sum(self.evidence.layers[rows[name]].weights for name in group)))
            choices[layer.name] = tuple(self._choice(key, [rows[name] for name in group]) for key in keys)
            if self.evidence.joint_changes is not None:
                changes[layer.name] = np.stack([self._change(key, [rows[name] for name in group]) for key in keys])
        return layers, choices, changes

    def expanded(self, assignment: Assignment) -> Assignment:
        """The format of every layer, from that of every group."""
        leader = {name: group[0] for group in self.groups for name in group}
        return {layer.name: assignment[leader.get(layer.name, layer.name)] for layer in self.evidence.layers}

    def expanded_executions(self, executions: Assignment) -> Assignment:
        """The execution of every layer, from that of every group; absent where none was chosen."""
        leader = {name: group[0] for group in self.groups for name in group}
        named = ((layer.name, executions.get(leader.get(layer.name, layer.name))) for layer in self.evidence.layers)
        return {name: execution for name, execution in named if execution}

    def layer_bytes(self, assignment: Assignment) -> dict[str, int]:
        """Bytes in the file by layer."""
        return {
            layer.name: self.evidence.of_format(row, assignment[layer.name])[0]
            for row, layer in enumerate(self.evidence.layers)
        }

    def damage(self, assignment: Assignment, executions: Assignment | None = None) -> float:
        """Predicted damage."""
        return self.evidence.total(self.damage_by_output(assignment, executions))

    def damage_by_output(self, assignment: Assignment, executions: Assignment | None = None) -> dict[str, float]:
        """Damage of each output with every layer as it is assigned, and executed if that is said."""
        of_formats = self._damage_of_formats(assignment)
        of_executions = self.evidence.input_damage_by_output(executions or {})
        return {name: value + of_executions.get(name, 0.0) for name, value in of_formats.items()}

    def _damage_of_formats(self, assignment: Assignment) -> dict[str, float]:
        evidence = self.evidence
        scored = [
            (row, evidence.column(assignment[layer.name]))
            for row, layer in enumerate(evidence.layers)
            if assignment[layer.name] != "fp32"
        ]
        if self.coupling and scored:
            rows, columns = np.transpose(scored)
            return {
                name: damage_together(values[rows, columns].astype(np.float64), self.coupling)
                for name, values in evidence.changes.items()
            }
        return {
            name: math.fsum(float(values[row, column]) for row, column in scored)
            for name, values in evidence.damage.items()
        }

    def _choice(self, key: str, rows: Sequence[int]) -> Choice:
        members = [self.evidence.of_format(row, key) for row in rows]
        return Choice(key, sum(size for size, _ in members), math.fsum(damage for _, damage in members))

    def _change(self, key: str, rows: Sequence[int]) -> Array:
        changes = self.evidence.joint_changes
        assert changes is not None
        total: Array = np.zeros(changes.shape[2:])
        return total if key == "fp32" else total + changes[list(rows), self.evidence.column(key)].sum(0)


def _worth_taking(choices: Sequence[Choice], *, by_memory: bool) -> list[Choice]:
    """One format's ways to run, the fastest first, without those that a faster one matches in damage and memory."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.nanoseconds, choice.damage, choice.memory_bytes)):
        better = (one for one in kept if one.damage <= choice.damage)
        if not any(one.memory_bytes <= choice.memory_bytes or not by_memory for one in better):
            kept.append(choice)
    return kept
