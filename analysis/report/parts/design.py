"""Part 1: what was compared, by which metrics, on which model and scenes."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.evaluation.results import format_mb
from analysis.report.document import Document, Element, Section, Table, Text
from analysis.report.evaluation_tables import threshold_table
from analysis.report.experiment import Experiment
from analysis.report.wording import Wording
from mixedprec.planner import layers_by_format
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES, Format, get_format

METRIC_MEANINGS = {
    "MAE": "mean absolute error: mean |scheme - FP32|, in the output's unit",
    "MSE": "mean squared error: mean (scheme - FP32)^2; large errors count more",
    "RMSE": "square root of MSE, in the output's unit",
    "PSNR": "10 log10(MAX^2 / MSE) in dB, MAX the largest |FP32|; higher is better",
    "CE": "cross-entropy of softmax distributions; rated is its excess over the entropy of FP32, as that is its floor",
    "CosSim": "cosine similarity: (A.B) / (|A| |B|); 1 is the same direction",
    "RE": "relative error: mean |scheme - FP32| / (|FP32| + eps)",
    "SSIM": "structural similarity (Wang et al. 2004, windowed) of what is an image: depth, confidences, points",
}
DAMAGE = (
    "Damage is what schemes are ranked by: the normalised squared error (NMSE) of every output against FP32, averaged "
    "over outputs and scenes. 0 is no difference, 1 is as far off as an output of zeros. It has no unit, so outputs of "
    "any scale count alike."
)


def document(experiment: Experiment, say: Wording) -> Document:
    """The design of the experiment."""
    sections = (
        Section(say("Question"), (_question(experiment, say),)),
        Section(say("Baseline and schemes"), (_schemes(experiment, say), *_plan(experiment, say))),
        Section(say("Metrics"), (_metrics(say), say.table(threshold_table()), Text((say(DAMAGE),)))),
        Section(say("Model"), (_model(experiment, say),)),
        Section(say("Data"), (_data(experiment, say),)),
    )
    return Document(say("1. Design of the experiment"), sections, say.language)


def _question(experiment: Experiment, say: Wording) -> Text:
    lines = [
        say(
            "How small can {model} be made, which layers pay for that, and what happens to its outputs? FP32 is "
            "compared with the uniform schemes and with a mixed-precision plan that gives every layer its own format.",
            model=experiment.model or say("the model"),
        )
    ]
    if experiment.is_random:
        return Text((*lines, say("RANDOM WEIGHTS: these numbers say nothing about a trained network.")), "warning")
    return Text(tuple(lines))


def _schemes(experiment: Experiment, say: Wording) -> Table:
    measured = {result.key for result in experiment.evaluation.results} if experiment.evaluation else set()
    rows = [("FP32", "32", say("none"), say("none"), "0", say("baseline"))]
    for key in UNIFORM_SCHEMES:
        form = get_format(key)
        state = say("measured") if key in measured else say("not measured")
        rows.append((form.title, str(form.bits), _granularity(form, say), _symmetry(form, say), key, state))
    columns = ("scheme", "bits", "one scale for", "codes", "key", "here")
    return Table(
        say("Schemes"),
        tuple(map(say, columns)),
        [(*row[:4], "" if row[4] == "0" else row[4], row[5]) for row in rows],
        words=tuple(map(say, ("one scale for", "codes", "key", "here"))),
    )


def _granularity(form: Format, say: Wording) -> str:
    if form.group_size is not None:
        return say("{size} weights", size=form.group_size)
    return {"tensor": say("the tensor"), "channel": say("an output channel")}.get(form.granularity, say("none"))


def _symmetry(form: Format, say: Wording) -> str:
    return say("symmetric") if form.symmetric else say("with a zero point")


def _plan(experiment: Experiment, say: Wording) -> list[Element]:
    plan = experiment.plan
    if plan is None:
        return [Text((say("There is no plan in this run."),), "warning")]
    counts = layers_by_format(plan)
    sizes = {
        key: sum(plan.layer_bytes[name] for name, chosen in plan.formats.items() if chosen == key) for key in counts
    }
    rows = [
        (FORMATS[key].title if key in FORMATS else key, str(count), format_mb(sizes[key]))
        for key, count in sorted(counts.items(), key=lambda item: -sizes[item[0]])
    ]
    intro = say(
        "The plan: policy {policy}, from the score {score}, under a budget of {budget} ({bytes} bytes of file); what "
        "is not quantised is kept in {keep}.",
        policy=plan.policy,
        score=plan.score,
        budget=plan.budget_text,
        bytes=f"{plan.budget_bytes:,}",
        keep=plan.keep,
    )
    columns = tuple(map(say, ("format", "layers", "MB")))
    return [Text((intro,)), Table(say("Formats of the plan"), columns, rows)]


def _metrics(say: Wording) -> Table:
    rows = [(name, say(meaning)) for name, meaning in METRIC_MEANINGS.items()]
    return Table(
        say("Eight metrics, each against FP32's outputs"),
        (say("metric"), say("meaning")),
        rows,
        words=(say("meaning"),),
    )


def _model(experiment: Experiment, say: Wording) -> Element:
    rows: list[tuple[str, str]] = [(say("model"), experiment.model)]
    profile = experiment.profile
    if profile is not None:
        rows += [
            (say("parameters"), f"{int(profile.facts['parameters']):,}"),
            (say("quantisable layers"), str(len(profile.layers))),
            (say("their weights"), f"{sum(layer.weights for layer in profile.layers):,}"),
            (say("outputs"), ", ".join(profile.damage)),
        ]
    if experiment.evaluation is not None:
        rows.append((say("weights"), say.translated(experiment.evaluation.weights_note)))
    rows.append((say("fingerprint of the weights"), str(experiment.facts.get("model_fingerprint", say("unknown")))))
    return Table(say("The model"), (say("fact"), say("value")), rows, words=(say("value"),))


def _data(experiment: Experiment, say: Wording) -> Element:
    rows: list[tuple[str, str]] = []
    profile, evaluation = experiment.profile, experiment.evaluation
    if profile is not None:
        source = profile.facts.get("scene_source")
        rows += [(say("source"), _source(source, say) if isinstance(source, Mapping) else say("unknown"))]
        rows += [(say("calibration scenes"), ", ".join(map(str, profile.facts["scenes"])))]
        rows += [(say("their fingerprint"), str(profile.facts["scene_fingerprint"]))]
    if evaluation is not None:
        rows += [(say("evaluation scenes"), ", ".join(evaluation.scenes))]
        rows += [(say("their fingerprint"), str(evaluation.provenance.get("scene_fingerprint", say("unknown"))))]
        truth = say("yes") if set(evaluation.results[0].geometry) - {"agreement"} else say("no")
        rows += [(say("cameras, depth or points known"), truth)]
    rows.append((say("seed"), str(experiment.facts.get("seed", say("unknown")))))
    caption = say(
        "Plans are made from the calibration scenes and judged on the evaluation scenes; no picture is in both."
    )
    return Table(say("Scenes"), (say("fact"), say("value")), rows, caption, words=(say("value"),))


def _source(source: Mapping[str, object], say: Wording) -> str:
    what = {"synthetic": say("rooms that the tool renders"), "photos": say("photographs")}.get(str(source.get("kind")))
    folder = f": {source['folder']}" if source.get("folder") else ""
    views = say("{views} views a scene", views=source.get("views", "?"))
    return f"{what or source.get('kind')}{folder}, {views}"
