"""Part 2: the commands that were run, on which machine, with their times, and what went wrong."""

from __future__ import annotations

from analysis.report.document import Cell, Document, Element, Section, Table, Text
from analysis.report.experiment import Experiment
from analysis.report.wording import Wording

NO_LOG = (
    "No commands were logged in this folder: it was made by an earlier version of the tool. The files say which "
    "commands made them:"
)


def document(experiment: Experiment, say: Wording) -> Document:
    """The course of the experiment."""
    sections = (
        Section(say("Commands"), tuple(_commands(experiment, say))),
        Section(say("What went wrong, and what was warned of"), tuple(_trouble(experiment, say))),
        Section(say("Machine"), (_machine(experiment, say),)),
        Section(say("Files"), (_files(experiment, say), *absent_table(experiment, say))),
    )
    return Document(say("2. Course of the experiment"), sections, say.language)


def _commands(experiment: Experiment, say: Wording) -> list[Element]:
    if not experiment.commands:
        made_by = {str(part.get("command")) for part in _provenances(experiment) if part.get("command")}
        return [Text((say(NO_LOG),)), Text(tuple(sorted(made_by)), "code")]
    rows = [
        (
            each.started.replace("T", " ").removesuffix("+00:00"),
            each.command,
            f"{each.seconds:.1f}",
            str(each.exit_code),
        )
        for each in experiment.commands
    ]
    total = sum(each.seconds for each in experiment.commands)
    columns = tuple(map(say, ("started (UTC)", "command", "seconds", "exit code")))
    caption = say(
        "{count} commands, {seconds} s together; exit code 0 is success, 2 a refused input, 130 an interruption.",
        count=len(rows),
        seconds=f"{total:.1f}",
    )
    return [Table(say("Commands as they were run"), columns, rows, caption, words=(columns[1],))]


def _provenances(experiment: Experiment) -> list[dict[str, object]]:
    parts = (
        experiment.profile and experiment.profile.facts,
        experiment.plan and experiment.plan.provenance,
        experiment.evaluation and experiment.evaluation.provenance,
    )
    return [dict(part) for part in parts if part]


def _trouble(experiment: Experiment, say: Wording) -> list[Element]:
    failed = tuple(f"{each.command}: {each.error}" for each in experiment.commands if each.exit_code)
    notes = tuple(dict.fromkeys(note for each in experiment.commands for note in each.notes))
    blocks: list[Element] = [Text(failed, "warning") if failed else Text((say("No logged command failed."),))]
    if notes:
        blocks += [Text((say("What commands said beside their results:"),)), Text(notes, "points")]
    return blocks


def _machine(experiment: Experiment, say: Wording) -> Element:
    machine = dict(experiment.commands[-1].machine) if experiment.commands else {}
    if not machine:
        facts = experiment.facts
        machine = {name: str(facts[name]) for name in ("processor", "python", "torch", "numpy") if name in facts}
        machine["tool"] = str(facts.get("tool_version", say("unknown")))
    if "threads" in experiment.facts:
        machine["threads"] = str(experiment.facts["threads"])
    several = len({tuple(sorted(each.machine.items())) for each in experiment.commands}) > 1
    caption = say("Commands of this run were made on more than one machine or with several versions; this is the last.")
    rows = [(say(name), say.translated(value)) for name, value in machine.items()]
    return Table(
        say("Machine and versions"),
        (say("fact"), say("value")),
        rows,
        caption if several else "",
        words=(say("value"),),
    )


def _files(experiment: Experiment, say: Wording) -> Table:
    rows = [(name, Cell(f"{size:,}", size)) for name, size in sorted(experiment.files.items())]
    return Table(say("Files of the run"), (say("file"), say("bytes")), rows)


def absent_table(experiment: Experiment, say: Wording) -> list[Element]:
    """What is not there, and how to make it; nothing where all is there."""
    if not experiment.absent:
        return []
    rows = [(each.file, say.translated(each.reason), each.command) for each in experiment.absent]
    columns = tuple(map(say, ("file", "why", "made by")))
    return [Table(say("Not in this run"), columns, rows, words=columns[1:])]
