"""All plans that are allowed: the formats of every layer, and the layers that share one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mixedprec.constraints import common_formats
from mixedprec.evidence import Array, Evidence
from mixedprec.joint import damage_together
from mixedprec.policies import Assignment, Problem
from mixedprec.solver import Choice
from vggtkit.quant import Layer


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen, and what each choice costs and does.

    Attributes:
        evidence: bytes and damage of the layers.
        allowed: formats of every layer, by its name.
        groups: names of the layers that must share a format; no layer is in two.
        coupling: how far damage counts what layers do to each other, see `mixedprec.joint`; 0 sums over the layers.

    Raises:
        InputError: the layers of a group have no format in common.
    """

    evidence: Evidence
    allowed: Mapping[str, tuple[str, ...]]
    groups: Sequence[tuple[str, ...]] = field(default_factory=tuple)
    coupling: float = 0.0

    @staticmethod
    def unconstrained(evidence: Evidence, palette: Sequence[str]) -> SearchSpace:
        """Every layer in any format of a palette."""
        return SearchSpace(evidence, {layer.name: tuple(palette) for layer in evidence.layers})

    def problem(self, layer_budget: int) -> Problem:
        """The problem for a policy; a group stands there once, under the name of its first layer."""
        layers, choices, changes = self._items
        return Problem(layers, choices, layer_budget, changes)

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

    def layer_bytes(self, assignment: Assignment) -> dict[str, int]:
        """Bytes in the file by layer."""
        return {
            layer.name: self.evidence.of_format(row, assignment[layer.name])[0]
            for row, layer in enumerate(self.evidence.layers)
        }

    def damage(self, assignment: Assignment) -> float:
        """Predicted damage."""
        return self.evidence.total(self.damage_by_output(assignment))

    def damage_by_output(self, assignment: Assignment) -> dict[str, float]:
        """Damage of each output with every layer as it is assigned."""
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
