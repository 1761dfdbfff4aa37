"""Mutated files of every kind: each is read as it was meant, or refused in one line; never anything else.

Method: files of a finished run of the tiniest network are changed at seeded places (a bit, a byte, 64 zeros, a cut, an
insertion, two pieces swapped, a digit) and read as commands read them, in a child process under a time limit. Control:
the answer of the unchanged file; an answer that differs from it counts as silently wrong. A change that nothing reads
(padding, blanks) gives the same answer, which is right. Limit: the network is small, so its files are; and a file that
was changed together with its digest is not tried here (tests do that).

    python benchmarks/trust/fuzz.py --cases 3000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from analysis.steps.experiment import read_evaluation, read_experiment
from analysis.steps.run_folder import plan_of, subject_of_run
from benchmarks.trust.attempts import (
    TUNE,
    attempt,
    attempt_each,
    fresh_copy,
    make_tuned_run,
    make_whole,
    profile_command,
    run_command,
    started_command,
)
from mixedprec import load_quantized
from sensitivity import open_profile
from vggtkit.core.errors import InputError
from vggtkit.core.seal import sealed
from vggtkit.quant.roles import read_roles
from vggtkit.runtime.kernel_table import load_table

Task = Callable[[Path], tuple[int, str, object]]
WRITING = (
    "profile_by_plan", "plan_by_export", "packed_tuned", "results_by_report", "step", "step_of_errors",
    "step_of_tuning", "step_of_evaluation", "purpose",
)  # fmt: skip
"""Kinds whose reading is a command that writes."""
TOGETHER = 20
"""Files that are read by one child, one after the other; what writes ends it."""
WRONG = ("traceback", "exit_code_1", "hang", "crash", "silently_wrong", "refused_in_other_words")


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The content with one change; never the same."""
    while True:
        changed = _CHANGES[int(generator.integers(len(_CHANGES)))](bytearray(content), generator)
        if changed != content:
            return bytes(changed)


def _flip(content: bytearray, generator: np.random.Generator, mask: int = 0) -> bytearray:
    content[int(generator.integers(len(content)))] ^= mask or 1 << int(generator.integers(8))
    return content


def _digit(content: bytearray, generator: np.random.Generator) -> bytearray:
    places = [index for index, byte in enumerate(content[: 1 << 16]) if 48 <= byte <= 57]
    if places:
        content[places[int(generator.integers(len(places)))]] = 48 + int(generator.integers(10))
    return content


def _zeros(content: bytearray, generator: np.random.Generator) -> bytearray:
    start = int(generator.integers(len(content)))
    length = min(64, len(content) - start)
    content[start : start + length] = bytes(length)
    return content


def _cut(content: bytearray, generator: np.random.Generator) -> bytearray:
    return content[: int(generator.integers(len(content)))]


def _insert(content: bytearray, generator: np.random.Generator) -> bytearray:
    start = int(generator.integers(len(content)))
    return content[:start] + generator.bytes(int(generator.integers(1, 40))) + content[start:]


def _swap(content: bytearray, generator: np.random.Generator) -> bytearray:
    length = int(generator.integers(1, max(2, min(512, len(content) // 3))))
    first, second = (int(v) for v in generator.integers(0, len(content) - length, 2))
    content[first : first + length], content[second : second + length] = (
        content[second : second + length], content[first : first + length]
    )  # fmt: skip
    return content


_CHANGES = (_flip, partial(_flip, mask=0xFF), _digit, _zeros, _cut, _insert, _swap)


def _digest(values: dict[str, object]) -> str:
    sha256 = hashlib.sha256()
    for name, value in sorted(values.items()):
        array = value.numpy() if isinstance(value, torch.Tensor) else value
        sha256.update(name.encode())
        sha256.update(array.tobytes() if isinstance(array, np.ndarray) else repr(array).encode())
    return sha256.hexdigest()


def _read(read: Callable[[], str]) -> tuple[int, str, object]:
    try:
        return 0, "", read()
    except InputError as error:
        return (2 if "\n" not in str(error) else 1), f"error: {error}", None


def of_profile(path: Path) -> str:
    """Everything that plans are made from."""
    profile = open_profile(path)
    arrays: dict[str, object] = {f"damage {name}": value for name, value in profile.damage.items()}
    arrays |= {f"uniform {name}": value for name, value in profile.uniform.items()}
    arrays |= {f"changes {name}": value for name, value in profile.changes.items()}
    arrays |= {f"input changes {name}": value for name, value in profile.input_changes.items()}
    arrays |= {f"rounding {name}": value for name, value in profile.roundings.items()}
    arrays |= {f"noise {name}": value for name, value in profile.noise.items()}
    arrays |= {"sizes": profile.size_bytes, "layers": profile.layers, "facts": dict(sorted(profile.facts.items()))}
    first = profile.layers[0].name
    return _digest(arrays | {"activations": profile.activations("fp32", first)})


def of_packed(path: Path) -> str:
    """What the packed model computes."""
    torch.manual_seed(0)
    images = torch.rand(1, 1, 3, 32, 32)
    with torch.no_grad():
        outputs = load_quantized(path)(images)
    return _digest({name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)})


def _exported(run: Path) -> tuple[int, str, object]:
    code, said = run_command(["export", "--run", str(run)])
    return code, said, of_packed(run / "model-plan.safetensors") if code == 0 else None


def of_plan(run: Path) -> str:
    """A plan that was held against its profile, as every command reads it."""
    return _digest(vars(plan_of(run, open_profile(run / "profile.h5"))))


def of_subject(model: Path) -> str:
    """What the run's model computes, once it was found to be the one that was profiled."""
    run = model.parent / "run"
    subject = subject_of_run(run, open_profile(run / "profile.h5"), "cpu", str(model))
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = subject.model(torch.rand(1, 1, 3, 32, 32))
    return _digest({name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)})


def _reported(run: Path) -> tuple[int, str, object]:
    code, said = run_command(["report", "--run", str(run)])
    return code, said, (run / "comprehensive_report.txt").read_bytes() if code == 0 else None


def _planned(run: Path) -> tuple[int, str, object]:
    code, said = run_command(["plan", "--run", str(run)])
    return code, said, json.loads((run / "plan.json").read_text())["formats"] if code == 0 else None


def _resumed(run: Path) -> tuple[int, str, object]:
    (run / "profile.h5").unlink()
    code, said = run_command(profile_command(run, run.parent / "model"))
    profile = open_profile(run) if code == 0 else None
    return code, said, profile and _digest({**profile.damage, **profile.uniform, **profile.scores["isolated"]})


def _evaluated_again(run: Path) -> tuple[int, str, object]:
    (run / "comprehensive_results.json").unlink()
    code, said = run_command(["evaluate", "--repeats", "0", "--run", str(run)])
    if code:
        return code, said, None
    results = json.loads((run / "comprehensive_results.json").read_text())["results"]
    return code, said, [(row["key"], row["damage"], row["per_scene"], row["outputs"]) for row in results]


def _tuned_again(run: Path) -> tuple[int, str, object]:
    """From the plan that was not tuned yet; what takes no part in the numbers is left out."""
    (run / "plan.json").write_bytes((run / "plan.json.before").read_bytes())
    code, said = run_command([*TUNE, "--run", str(run)])
    return code, said, of_packed(run / "model-plan.safetensors") if code == 0 else None


def _of_experiment(file: str, part: str, run: Path) -> tuple[int, str, object]:
    """What a report takes from a file; one that is named as absent is refused."""

    def read() -> str:
        experiment = read_experiment(run)
        if refused := [each for each in experiment.absent if each.file == file]:
            raise InputError(refused[0].reason)
        value = getattr(experiment, part)
        return _digest(vars(value)) if part == "maps" else repr(value)

    return _read(read)


def _audit_like(run: Path) -> str:
    """A small audit as `audit` writes it, which takes a minute."""
    score = {
        "agreement": {"all": {"spearman": {"value": 0.5}}},
        "regret_interval": [1.0, 1.2],
        "passes": 4,
        "regret": 1.1,
    }
    profile, formats = open_profile(run), ["int8_per_channel_sym"]
    shares = {
        "trunk": [next(layer.name for layer in profile.layers if layer.block.startswith("frame."))],
        "token_classes": {"camera": [[0.1]], "register": [[0.2]], "patch": [[0.3]], "all": [[0.5]]},
        "token_class_formats": formats,
    }
    values = {
        "provenance": {"model_fingerprint": profile.facts["model_fingerprint"]}, "layers": 3, "formats": formats,
        "favoured": "sketch", "scores": {"sketch": score, "size": score}, "measured": shares,
    }  # fmt: skip
    return json.dumps(sealed(values))


KINDS: dict[str, tuple[str, str, float, Task]] = {
    # kind: file, folder that it is of, share of the cases, how it is read
    "profile": ("profile.h5", "run", 0.3, lambda run: _read(lambda: of_profile(run / "profile.h5"))),
    "profile_by_plan": ("profile.h5", "run", 0.01, _planned),
    "plan": ("plan.json", "run", 0.16, lambda run: _read(lambda: of_plan(run))),
    "plan_by_export": ("plan.json", "run", 0.02, _exported),
    "plan_tuned": ("plan.json", "tuned", 0.05, lambda run: _read(lambda: of_plan(run))),
    "packed": (
        "model-plan.safetensors", "run", 0.2, lambda run: _read(lambda: of_packed(run / "model-plan.safetensors"))
    ),
    "packed_tuned": ("model-plan.safetensors", "tuned", 0.01, _exported),
    "results": ("comprehensive_results.json", "run", 0.03, lambda run: _read(lambda: repr(read_evaluation(run)))),
    "results_by_report": ("comprehensive_results.json", "run", 0.004, _reported),
    "step": ("profile.h5.parts/0-damage.npz", "run", 0.005, _resumed),
    "step_of_errors": ("profile.h5.parts/0-int4_group_128.npz", "run", 0.005, _resumed),
    "step_of_tuning": ("model-plan.safetensors.parts/whole-model.npz", "tuned", 0.005, _tuned_again),
    "step_of_evaluation": ("comprehensive_results.json.parts/03-scene-0000.npz", "run", 0.01, _evaluated_again),
    "purpose": ("comprehensive_results.json.parts/purpose.json", "run", 0.005, _evaluated_again),
    "pareto": ("pareto.json", "run", 0.03, partial(_of_experiment, "pareto.json", "pareto")),
    "audit": ("score_audit.json", "run", 0.03, partial(_of_experiment, "score_audit.json", "audit")),
    "depth_maps": ("depth_maps.npz", "run", 0.02, partial(_of_experiment, "depth_maps.npz", "maps")),
    "kernels": ("kernels.json", "run", 0.03, lambda run: _read(lambda: repr(load_table(run / "kernels.json")))),
    "roles": ("roles.toml", "run", 0.02, lambda run: _read(lambda: "a table" * bool(read_roles(run / "roles.toml")))),
    "config_of_run": ("config.json", "model", 0.04, lambda model: _read(lambda: of_subject(model))),
    "weights_of_run": ("model.safetensors", "model", 0.04, lambda model: _read(lambda: of_subject(model))),
}  # fmt: skip


def _make(files: Collection[tuple[str, str]], places: Path) -> None:
    """What is to be changed: files of a run, of a tuned one and of their network, by folder and name."""
    model, run = make_whole(places)
    if any(where == "tuned" for where, _ in files):
        make_tuned_run(places / "tuned", model)
    commands = {
        "pareto.json": ["pareto", "--points", "3", "--measure", "0"],
        "kernels.json": ["kernels", "--seconds", "1"],
    }
    for words in [commands[file] for where, file in sorted(files) if file in commands]:
        process = started_command([*words, "--run", str(run)])  # not here: threads that it starts are in no copy
        if process.wait():
            raise RuntimeError(f"{words}: {process.said}")
    (run / "score_audit.json").write_text(_audit_like(run))
    (run / "roles.toml").write_text("[roles]\n'^head[.](.*)' = 'head'\n[blocks]\n'blocks[.](\\d+)' = 'b.\\1'\n")


def fuzz(
    cases: int, seed: int, folder: Path, seconds: float = float("inf"), kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, object]:
    """Try so many mutated files, or as many as time allows; counts of what came of them, and whatever went wrong."""
    tried_kinds = {kind: KINDS[kind] for kind in kinds}
    places = folder / "whole"
    _make({(where, file) for file, where, _, _ in tried_kinds.values()}, places)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    wrong: list[dict[str, object]] = []
    right = {}
    originals = {kind: (places / where / file).read_bytes() for kind, (file, where, _, _) in tried_kinds.items()}
    backup = fresh_copy(places, folder / "backup")
    for kind, (_, where, _, task) in tried_kinds.items():
        right[kind] = attempt(partial(task, places / where))
        if right[kind].code != 0:
            raise RuntimeError(f"{kind}: {right[kind].said}")
        _restore(backup, places)
    started = time.monotonic()
    shares = np.array([share for *_, share, _ in tried_kinds.values()])
    order = np.random.default_rng(seed).choice(list(kinds), size=cases, p=shares / shares.sum())
    waiting: list[tuple[int, str]] = []
    for number, kind in enumerate(map(str, order)):
        if time.monotonic() - started > seconds:
            break
        waiting.append((number, kind))
        if kind not in WRITING and len(waiting) < TOGETHER and number + 1 < cases:
            continue
        tasks = [
            partial(_changed, places / KINDS[of][1], KINDS[of], originals[of], np.random.default_rng([seed, case]))
            for case, of in waiting
        ]
        for (case, of), tried in zip(waiting, attempt_each(tasks), strict=True):
            outcome = tried.kind
            if outcome == "done":
                outcome = "same" if tried.answer == right[of].answer else "silently_wrong"
            counts[of][outcome] += 1
            if outcome in WRONG:
                wrong.append({"case": case, "kind": of, "outcome": outcome, "said": tried.said[-300:]})
        _restore(backup, places)
        waiting = []
    total = sum(counts.values(), Counter())
    return {
        "benchmark": "trust_fuzz", "seed": seed, "cases": sum(total.values()),
        "outcomes": dict(sorted(total.items())), "wrong": sum(total[name] for name in WRONG),
        "by_kind": {kind: dict(sorted(count.items())) for kind, count in counts.items()}, "first_wrong": wrong[:20],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _changed(
    folder: Path, kind: tuple[str, str, float, Task], original: bytes, generator: np.random.Generator
) -> tuple[int, str, object]:
    """A changed file as it is read; it is put back, as others are read after it."""
    file, _, _, task = kind
    (folder / file).write_bytes(mutated(original, generator))
    try:
        return task(folder)
    finally:
        with suppress(FileNotFoundError):  # a command that went on from steps removes them; the caller makes all whole
            (folder / file).write_bytes(original)


def _restore(backup: Path, places: Path) -> None:
    """What a case has changed is as it was; other files of the runs are left alone, for speed."""
    for source in backup.rglob("*"):
        target = places / source.relative_to(backup)
        if source.is_file() and (not target.is_file() or target.stat().st_mtime_ns != source.stat().st_mtime_ns):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for leftover in places.rglob(".*"):
        leftover.unlink()


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(fuzz(options.cases, options.seed, Path(folder), options.seconds)))


if __name__ == "__main__":
    main()
