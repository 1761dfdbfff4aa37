"""The wheel, installed and used from a folder that has modules of its own by the names that ours once had."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"vggtkit", "sensitivity", "mixedprec", "analysis", "cli.py"}
THEIRS = ("model", "quant", "errors", "scenes", "commands")

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def batches():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(3, 16, generator=generator)
"""

SCRIPT = """
import sys
from pathlib import Path

import model, quant, errors, scenes, commands
from mixedprec import load_quantized, load_plan, apply_plan
from sensitivity import open_profile
from analysis import compare_outputs
from vggtkit.model import load_vggt
from vggtkit.quant import FORMATS, quantize, dequantize
import torch, vggtkit

here = Path.cwd()
assert all(Path(own.__file__).parent == here for own in (model, quant, errors, scenes, commands))
assert Path(vggtkit.__file__).is_relative_to(sys.argv[1]), vggtkit.__file__
assert "int4_group_128" in FORMATS and load_vggt("tiny", weights="random").config.embed_dim == 128
packed = load_quantized("run/model-plan.safetensors", model=model.build)
simulated = apply_plan(model.build().eval(), load_plan("run/plan.json"))
x = torch.ones(2, 16)
with torch.no_grad():
    assert packed(x).equal(simulated(x))
    assert compare_outputs({"y": packed(x)}, {"y": simulated(x)})["y"].mae == 0
assert len(open_profile("run").layers) == 2
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, "."]
    # Built from a copy, so that no folder of a build is left in the tree.
    tree = folder / "tree"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/", "docs/", "training/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).hardlink_to(ROOT / name)
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_nothing_else_is_importable(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == OURS


@pytest.mark.slow
def test_used_beside_modules_of_ones_own(wheel: Path, tmp_path: Path) -> None:
    installed, here = tmp_path / "installed", tmp_path / "project"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    here.mkdir()
    for name in THEIRS:
        (here / f"{name}.py").write_text(MODEL if name == "model" else "raise_if_ours = False\n")
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(tmp_path)}

    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command], cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    cli = ("-m", "cli")
    run(*cli, "profile", "--model", "model:build", "--inputs", "model:batches", "--num-scenes", "2", "--run", "run")
    run(*cli, "plan", "--run", "run", "--budget", "int4_group_128", "--rounding", "nearest")
    run(*cli, "export", "--run", "run")
    run("-c", SCRIPT, str(installed))
