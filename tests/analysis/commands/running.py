"""Running the command line inside a test, and what may come of it."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import h5py

from cli import main
from sensitivity.hdf5 import DIGEST, content_digest
from vggtkit.core.command_log import LOG

RESULTS = ("comprehensive_results.json", "comprehensive_report.txt", "comprehensive_visualizations.png")


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def cli(*arguments: object) -> Ran:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def the_json(ran: Ran) -> dict[str, object]:
    """The one strict JSON document that the command printed."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == 1
    return json.loads(ran.out, parse_constant=refuse)


def assert_refused(ran: Ran, *fragments: str) -> None:
    """Exit code 2 and one line that says all of these; a profile may have been announced before."""
    said = [line for line in ran.err.splitlines() if not line.startswith("profiling ")]
    assert (ran.code, ran.out) == (2, "")
    assert len(said) == 1
    assert said[0].startswith("error: ")
    for fragment in fragments:
        assert fragment in said[0]


def change_facts(run: Path, **facts: str) -> None:
    """Give a profile other attributes, and the digest that belongs to them."""
    with h5py.File(run / "profile.h5", "a") as file:
        file.attrs.update(facts)
        file.attrs[DIGEST] = content_digest(file)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a run, in folders too, but the log of commands, which grows with every one."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != LOG}
