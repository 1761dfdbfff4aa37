"""Part 5: what is recommended for whom and why, the limits of that, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.evaluation.advice import (
    AS_FAST,
    HARMLESS,
    LAPTOP_SHARE_GB,
    Advice,
    advise,
    export_command,
)
from analysis.evaluation.cost import SCENES_TO_JUDGE
from analysis.evaluation.expected import EDGE_COMPRESSION
from analysis.evaluation.results import format_mb, format_number
from analysis.report.document import Cell, Document, Element, Section, Table, Text
from analysis.report.experiment import Experiment
from analysis.report.parts.findings import said_of
from analysis.report.wording import Wording
from vggtkit.core.program import command
from vggtkit.quant import FORMATS

NEW = (
    "Against an experiment of uniform schemes alone: bytes are those of files that load, errors inherited from other "
    "layers and errors made in a layer are told apart, plans come from an estimate of the damage at the outputs, "
    "geometry is judged against the truth where there is one, and evaluation scenes are never those of the plan."
)


def document(experiment: Experiment, say: Wording) -> Document:
    """Conclusions and advice."""
    if experiment.evaluation is None:
        text = Text((say("There is no evaluation in this run, so nothing is recommended."),), "warning")
        sections = [
            Section(say("Recommendation"), (text, Text((command("evaluate", "--run", experiment.run),), "code")))
        ]
    else:
        sections = [
            Section(say("Recommendation"), tuple(recommendation(experiment, say))),
            Section(say("By scenario"), tuple(scenarios(experiment, say))),
        ]
    sections += [
        Section(say("Limits"), (Text(tuple(_limits(experiment, say)), "points"),)),
        Section(say("What to try next"), (Text(tuple(_next(experiment, say)), "points"),)),
        Section(say("What is new"), (Text((say(NEW),)),)),
    ]
    return Document(say("5. Conclusions and advice"), tuple(sections), say.language)


def recommendation(experiment: Experiment, say: Wording) -> list[Element]:
    """The scheme that this run speaks for, and why."""
    evaluation = experiment.evaluation
    if evaluation is None or not evaluation.quantized:
        return [Text((say("Only FP32 was evaluated."),), "warning")]
    if experiment.is_random:
        warned = say("RANDOM WEIGHTS: these numbers say nothing about a trained network.")
        return [Text((warned,), "warning"), *_recommended(experiment, say)]
    return _recommended(experiment, say)


def _recommended(experiment: Experiment, say: Wording) -> list[Element]:
    evaluation, verdict = experiment.evaluation, experiment.verdict
    assert evaluation is not None
    assert verdict is not None
    chosen = next(one for one in evaluation.quantized if one.key == verdict.recommended)
    return [*said_of(experiment, say), Text((export_command(chosen, experiment.run),), "code")]


def scenarios(experiment: Experiment, say: Wording) -> list[Element]:
    """A rule for every scenario, what it leads to, and where that is not what the guide advises."""
    evaluation = experiment.evaluation
    if evaluation is None:
        return []
    advice = advise(evaluation)
    rows = [_scenario(each, say) for each in advice]
    names = ("scenario", "rule", "measurements favour", "MB", "damage", "time s", "memory MB", "the guide advises")
    columns = tuple(map(say, names))
    table = Table(say("Advice by scenario"), columns, rows, words=(columns[1], columns[2], columns[7]))
    lines = [
        say(
            "{scenario}: the guide advises {advised} ({advised_mb} MB, damage {advised_damage}); under the rule above "
            "{chosen} comes first ({mb} MB, damage {damage}).",
            scenario=say(each.title),
            advised=each.advised.title,
            advised_mb=format_mb(each.advised.size_bytes),
            advised_damage=format_number(each.advised.damage),
            chosen=each.chosen.title,
            mb=format_mb(each.chosen.size_bytes),
            damage=format_number(each.chosen.damage),
        )
        for each in advice
        if each.contradicts and each.chosen is not None and each.advised is not None
    ]
    blocks: list[Element] = [table]
    if lines:
        blocks += [Text((say("Where measurement contradicts the guide:"),)), Text(tuple(lines), "points")]
    blocks.append(Text(_commands(advice, experiment, say), "code"))
    if str(evaluation.provenance.get("device", "")).startswith("cuda"):
        return blocks
    timing = say("GPU serving goes by times on a GPU; the times here are of a processor. This times them on a GPU:")
    on_gpu = command("evaluate", "--run", experiment.run, "--device", "cuda")
    return [*blocks, Text((timing,)), Text((on_gpu,), "code")]


def _commands(advice: Sequence[Advice], experiment: Experiment, say: Wording) -> tuple[str, ...]:
    """What makes the file for every scenario, each command once, with those that it is for as a comment."""
    scenarios: dict[str, list[str]] = {}
    for each in advice:
        if each.chosen is not None:
            scenarios.setdefault(export_command(each.chosen, experiment.run), []).append(say(each.title))
    return tuple(f"{line}  # {', '.join(titles)}" for line, titles in scenarios.items())


def _scenario(each: Advice, say: Wording) -> tuple[str | Cell, ...]:
    rule = say(
        each.rule, limit=f"{HARMLESS:g}", compression=f"{EDGE_COMPRESSION:g}", as_fast=f"{AS_FAST:.0%}",
        laptop=LAPTOP_SHARE_GB,
    )  # fmt: skip
    advised = each.advised.title if each.advised else say("not measured") if each.is_of_guide else say("nothing")
    if each.chosen is None:
        why = say(each.lacking) if each.lacking else say("nothing keeps the rule")
        return (say(each.title), rule, why, "", "", "", "", advised)
    size, damage, memory = each.chosen.size_bytes, each.chosen.damage, each.chosen.memory_bytes
    cells = (
        Cell(format_mb(size), size),
        Cell(format_number(damage), damage),
        Cell(format_number(each.chosen.seconds), each.chosen.seconds),
        Cell("n/a" if memory is None else format_mb(memory), memory),
    )
    return (say(each.title), rule, each.chosen.title, *cells, advised)


def _limits(experiment: Experiment, say: Wording) -> list[str]:
    said = []
    evaluation, profile = experiment.evaluation, experiment.profile
    if evaluation is not None:
        scenes = len(evaluation.scenes)
        said.append(say("Judged on {count} scenes; other scenes may answer otherwise.", count=scenes))
        if scenes < SCENES_TO_JUDGE:
            said.append(
                say(
                    "Of fewer than {count} scenes no change of cameras and depth can be told from noise.",
                    count=SCENES_TO_JUDGE,
                )
            )
        if not evaluation.results[0].geometry:
            said.append(
                say(
                    "The scenes have no true cameras or depth, or the model predicts none: only differences from "
                    "FP32 are known."
                )
            )
        if evaluation.results[0].seconds is None:
            said.append(say("Nothing was timed."))
    if profile is not None and experiment.model == "tiny":
        said.append(
            say(
                "The bundled network is small and trained on rendered scenes: it shows the method, not the quality "
                "of VGGT-1B."
            )
        )
    if experiment.is_random:
        said.append(say("RANDOM WEIGHTS: these numbers say nothing about a trained network."))
    said.append(say("Cross-entropy is not made for regression; it is reported because the guide asks for it."))
    return said


def _next(experiment: Experiment, say: Wording) -> list[str]:
    """What this run has not tried."""
    run, said = ("--run", experiment.run), []
    evaluation, plan = experiment.evaluation, experiment.plan
    said += [f"{say('Missing here')}: {each.file}: {each.command}" for each in experiment.absent]
    if evaluation is not None and len(evaluation.scenes) < SCENES_TO_JUDGE:
        more = command("evaluate", *run, "--num-scenes", 2 * SCENES_TO_JUDGE)
        said.append(f"{say('More scenes, to tell changes from noise')}: {more}")
    if plan is not None and not any(FORMATS[key].bits < 4 for key in plan.formats.values() if key in FORMATS):
        said.append(f"{say('All formats, down to 2 bits')}: {command('plan', *run, '--formats', 'all')}")
    said.append(f"{say('A smaller budget')}: {command('plan', *run, '--budget', '10%')}")
    said.append(f"{say('Measured swaps')}: {command('plan', *run, '--refine', 32)}")
    if evaluation is not None and all(not result.execution for result in evaluation.results):
        said.append(f"{say('Execution in whole numbers')}: {command('evaluate', *run, '--execute', 'int8')}")
    return said
