"""A drawing of VGGT with the bits of every layer as colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx

from analysis.report.charts.fonts import letters_of
from analysis.report.profile_tables import role_title
from analysis.report.theme import BITS_SCALE, QUIET
from analysis.report.wording import ENGLISH, Wording
from mixedprec import Plan
from vggtkit.core.atomic import replacing
from vggtkit.core.escaping import plain_for_charts
from vggtkit.quant import Layer, get_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TRUNK_ROWS = 4
HEAD_ROWS = 4
GAP = 0.25


def draw_plan(plan: Plan, layers: Sequence[Layer], graph: nx.DiGraph, path: Path, say: Wording = ENGLISH) -> None:
    """Draw every layer of a plan as a square, blocks in the order of execution, and who feeds whom as arrows.

    Args:
        plan: formats by layer.
        layers: of the model.
        graph: of `mixedprec.graph`, of the same layers.
        path: of the PNG.
        say: words, as `wording_of_charts` gives them.
    """
    with letters_of(say), replacing(path) as temporary:
        _figure(plan, layers, graph, say).savefig(temporary, format="png")


def _figure(plan: Plan, layers: Sequence[Layer], graph: nx.DiGraph, say: Wording) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    members: dict[str, list[Layer]] = {}
    for layer in layers:
        members.setdefault(layer.block, []).append(layer)
    order = block_order(graph)
    trunk = [block for block in order if not block.endswith("_head")]
    heads = [block for block in order if block.endswith("_head")]
    widest = max(len(trunk), *(-(-len(members[head]) // HEAD_ROWS) for head in heads), 1)
    figure = Figure(figsize=(max(9.0, min(18.0, 0.21 * widest + 3)), 1.9 + 0.85 * len(heads) + 1.5), dpi=160)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.1, 0.96, 0.78))
    places: dict[str, tuple[float, float, float, float]] = {}
    for column, block in enumerate(trunk):
        places[block] = _draw_block(axes, plan, members[block], column * (1 + GAP), 0.0, TRUNK_ROWS)
    for row, head in enumerate(heads):
        top = -(TRUNK_ROWS + 2.2) - row * (HEAD_ROWS + 1.6)
        places[head] = _draw_block(axes, plan, members[head], 8.0, top, HEAD_ROWS)
        name = plain_for_charts(say.translated(role_title(head)))
        axes.text(7.2, top - HEAD_ROWS / 2, name, ha="right", va="center", fontsize=9)
    _draw_arrows(axes, block_graph(graph), places, heads)
    _label_trunk(axes, trunk, places, say)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.axis("off")
    bits = 8 * sum(plan.layer_bytes.values()) / sum(layer.weights for layer in layers)
    title = say(
        "{model}: {mb} MB, {bits} bits per weight, {count} layers",
        model=plan.model, mb=f"{plan.size_bytes / 1e6:.2f}", bits=f"{bits:.2f}", count=len(layers),
    )  # fmt: skip
    figure.suptitle(plain_for_charts(title), x=0.02, ha="left", fontsize=12)
    _draw_legend(figure, plan, layers, max(4, int(figure.get_figwidth() / 2.2)), say)
    return figure


def block_graph(graph: nx.DiGraph) -> nx.DiGraph:
    """Blocks instead of layers: an edge where a layer of one feeds a layer of another."""
    blocks = nx.get_node_attributes(graph, "block")
    merged = nx.DiGraph()
    merged.add_nodes_from(dict.fromkeys(blocks.values()))
    merged.add_edges_from((blocks[a], blocks[b]) for a, b in graph.edges if blocks[a] != blocks[b])
    return merged


def block_order(graph: nx.DiGraph) -> list[str]:
    """The blocks as data flows through them, the pictures left out; heads in their order in the model."""
    blocks = block_graph(graph)
    position = {block: number for number, block in enumerate(blocks)}
    ordered = nx.lexicographical_topological_sort(blocks, key=lambda block: (block.endswith("_head"), position[block]))
    return [block for block in ordered if block != "input"]


def _draw_block(
    axes: Axes, plan: Plan, layers: Sequence[Layer], left: float, top: float, rows: int
) -> tuple[float, float, float, float]:
    """Squares column by column; left, right, top and bottom of the block."""
    from matplotlib.patches import Rectangle

    for number, layer in enumerate(layers):
        column, row = divmod(number, rows)
        colour = BITS_SCALE[get_format(plan.formats[layer.name]).bits]
        axes.add_patch(
            Rectangle((left + column, top - row - 1), 0.92, 0.92, facecolor=colour, edgecolor="white", linewidth=0.4)
        )
    columns = -(-len(layers) // rows)
    return left, left + columns, top, top - min(rows, len(layers))


def _draw_arrows(
    axes: Axes, blocks: nx.DiGraph, places: Mapping[str, tuple[float, float, float, float]], heads: Sequence[str]
) -> None:
    """What feeds what beyond what follows from other arrows (residual paths feed all that comes later)."""
    reduced = nx.transitive_reduction(blocks) if nx.is_directed_acyclic_graph(blocks) else blocks
    style = {"arrowstyle": "-|>", "color": QUIET, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    for source, target in reduced.edges:
        if target not in places or (source not in places):
            continue
        left, right, top, bottom = places[source]
        other = places[target]
        if target in heads:
            rail = other[0] - 6.9
            middle = (other[2] + other[3]) / 2
            axes.plot(
                [(left + right) / 2 - 0.04, (left + right) / 2 - 0.04, rail, rail],
                [bottom - 0.1, bottom - 1.1, bottom - 1.1, middle],
                color=QUIET, linewidth=0.7, solid_joinstyle="miter",
            )  # fmt: skip
            axes.annotate("", (rail + 1.0, middle), (rail, middle), arrowprops=style)
        else:
            axes.annotate("", (other[0], top + 0.25), (right - 0.08, top + 0.25), arrowprops=style)


def _label_trunk(
    axes: Axes, trunk: Sequence[str], places: Mapping[str, tuple[float, float, float, float]], say: Wording
) -> None:
    """Above which squares what begins, and what the rows are."""
    names = {"vit": say("image encoder"), "frame": say("frame and global blocks in turn"), "patch_embed": ""}
    seen = {"global"}
    for block in trunk:
        kind = block.partition(".")[0]
        if kind not in seen:
            axes.text(
                places[block][0], 0.85, plain_for_charts(names.get(kind, kind)), ha="left", va="bottom", fontsize=9
            )
        seen.add(kind)
    for row, name in enumerate(("attention in", "attention out", "MLP in", "MLP out")):
        axes.text(-0.4, -row - 0.5, say(name), ha="right", va="center", fontsize=7, color=QUIET)


def _draw_legend(figure: Figure, plan: Plan, layers: Sequence[Layer], columns: int, say: Wording) -> None:
    from matplotlib.patches import Patch

    total = sum(layer.weights for layer in layers)
    share: dict[int, int] = {}
    for layer in layers:
        bits = get_format(plan.formats[layer.name]).bits
        share[bits] = share.get(bits, 0) + layer.weights
    labels = {
        bits: say("{bits} bit: {share} of weights", bits=bits, share=f"{share[bits] / total:.1%}")
        for bits in sorted(share)
    }
    handles = [Patch(facecolor=BITS_SCALE[bits], label=label) for bits, label in labels.items()]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.015, 0.005), ncols=columns, fontsize=8, frameon=False
    )
