"""``profile.h5``: what is written is read back, in the promised layout, and damage is refused in one line."""

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sensitivity.hdf5 import _Disk, content_digest
from sensitivity.store import ERROR_KINDS, SCORE_METRICS, Profile, open_profile
from sensitivity.writer import ProfileWriter, writing_profile
from vggtkit.core.errors import InputError
from vggtkit.core.interrupts import TerminatedError, interruptible
from vggtkit.core.signature import is_signed
from vggtkit.core.trial import try_first
from vggtkit.quant import Layer

LAYERS = (
    Layer("aggregator.frame_blocks.0.mlp.fc1", "linear", "mlp", "frame.0", (8, 4), 32),
    Layer("depth_head.projects.0", "conv2d", "depth_head", "depth_head", (6, 4, 1, 1), 24),
)
SCHEMES = ("int8_per_channel_sym", "int4_group_128")
CANDIDATES = ("int8_per_channel_sym", "int4_group_128", "int3_group_32")
FACTS = {"model": "small", "seed": 3, "ratio": 0.5, "scenes": ["a", "b"], "scene_source": {"kind": "photos"}}
SIZES = [[40, 20, 15], [30, 15, 12]]
rng = np.random.default_rng(0)
SCORES = {kind: {metric: rng.random((2, 2)) for metric in SCORE_METRICS} for kind in ERROR_KINDS}
SCORES["isolated"]["ssim"][1, 0] = np.nan
SIGNED = {name: rng.standard_normal((2, 3, 2, 4)).astype(np.float32) for name in ("depth", "pose_enc")}
DAMAGE = {name: np.square(values, dtype=np.float64).mean((2, 3)) for name, values in SIGNED.items()}
FORMATS = ("int8_token", "int4_token")
ROUNDED = {name: rng.standard_normal((2, 2, 2, 4)).astype(np.float32) for name in ("depth", "pose_enc")}
UNIFORM = {"depth": rng.random(2), "pose_enc": rng.random(2)}
TOKENS = rng.random((2, 5, 8)).astype(np.float32)


def fill(writer: ProfileWriter) -> None:
    writer.table(SIZES)
    for kind in ERROR_KINDS:
        writer.scores(kind, SCORES[kind])
    writer.changes(SIGNED)
    writer.input_changes(ROUNDED)
    writer.scores("output", DAMAGE)
    writer.scores("uniform", UNIFORM)
    for scene, tokens in enumerate(TOKENS):
        writer.activations("fp32", LAYERS[0].name, scene, len(TOKENS), tokens)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "profile.h5"
    with writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS, FORMATS) as writer:
        fill(writer)
    return path


def test_a_profile_survives_its_file(path: Path) -> None:
    profile = open_profile(path)
    assert (profile.layers, profile.schemes, profile.candidates) == (LAYERS, SCHEMES, CANDIDATES)
    assert {name: profile.facts[name] for name in FACTS} == FACTS
    np.testing.assert_array_equal(profile.size_bytes, SIZES)
    for kind in ERROR_KINDS:
        assert profile.scores[kind].keys() == set(SCORE_METRICS)
        for metric, values in SCORES[kind].items():
            np.testing.assert_array_equal(profile.scores[kind][metric], values)
    assert profile.activation_formats == FORMATS
    for found, expected in (
        (profile.damage, DAMAGE), (profile.uniform, UNIFORM), (profile.changes, SIGNED),
        (profile.input_changes, ROUNDED),
    ):  # fmt: skip
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    np.testing.assert_array_equal(profile.activations("fp32", LAYERS[0].name), TOKENS)
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.h5"]


def test_totals_are_means_over_the_outputs(path: Path) -> None:
    profile = open_profile(path.parent)  # the folder of the run will do
    np.testing.assert_allclose(profile.total_damage, (DAMAGE["depth"] + DAMAGE["pose_enc"]) / 2)
    np.testing.assert_allclose(profile.total_uniform, (UNIFORM["depth"] + UNIFORM["pose_enc"]) / 2)
    assert profile.column("int3_group_32") == 2


def test_damage_of_rounded_inputs_is_the_mean_square_of_what_it_changes(path: Path) -> None:
    profile = open_profile(path)
    for name, values in profile.activation_damage("int4_token").items():
        np.testing.assert_allclose(values, (ROUNDED[name][:, 1].astype(np.float64) ** 2).mean((1, 2)))
    with pytest.raises(InputError, match="it has int8_token, int4_token"):
        profile.activation_damage("int4_block_128")


def test_the_file_explains_itself(path: Path) -> None:
    """The layout that the design promises, by h5py alone."""
    with h5py.File(path) as file:
        assert set(file) == {"layers", "activations", "changes", "input_changes", "scores"}
        assert file.attrs["schema_version"] == 4
        for dataset in file["changes"].values():
            assert dataset.attrs["axes"] == "layer, candidate, scene, probe"
            assert len(json.loads(dataset.attrs["candidates"])) == dataset.shape[1]
        assert json.loads(file.attrs["scenes"]) == ["a", "b"]
        columns = file["layers"].dtype.names
        assert columns[:6] == ("name", "kind", "role", "block", "shape", "weights")
        assert columns[6:] == tuple(f"bytes_{key}" for key in CANDIDATES)
        assert file["layers"][1]["name"].decode() == LAYERS[1].name
        assert file["layers"][1]["shape"].decode() == "6x4x1x1"
        activations = file[f"activations/fp32/{LAYERS[0].name}"]
        assert activations.shape == TOKENS.shape
        assert activations.attrs["axes"] == "scene, token, channel"
        assert "units" in activations.attrs
        assert set(file["scores"]) == {"accumulated", "isolated", "output", "uniform"}
        for group in ("accumulated", "isolated", "output"):
            for dataset in file[f"scores/{group}"].values():
                assert dataset.attrs["axes"] == "layer, scheme"
                assert len(json.loads(dataset.attrs["schemes"])) == dataset.shape[1]
                assert dataset.attrs["meaning"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_crash_while_writing_leaves_the_old_file(path: Path, failure: type[BaseException]) -> None:
    before = path.read_bytes()
    with (
        pytest.raises(failure),
        writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS, FORMATS) as writer,
    ):
        writer.table(SIZES)
        raise failure
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.h5"]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_profile(path)
    message = str(caught.value)
    assert str(path) in message
    assert "python cli.py profile" in message
    assert "\n" not in message
    return message


def test_absence_says_which_command_makes_it(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "profile.h5")
    with pytest.raises(InputError, match=r"profile\.h5: no such file"):
        open_profile(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 500, 4000, 0.5, 0.99])
def test_a_truncated_file_is_refused(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    assert "not a readable profile" in refused(path)


def test_what_is_no_hdf5_is_refused(path: Path) -> None:
    path.write_text("{}" * 1000)
    assert "not a readable profile" in refused(path)


CHANGES: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "other-version": (lambda f: f.attrs.modify("schema_version", 9), "schema version is 9, this tool reads 4"),
    "no-version": (lambda f: f.attrs.pop("schema_version"), "schema version is None"),
    "no-layers": (lambda f: f.pop("layers"), "not a readable profile"),
    "layers-a-group": (lambda f: (f.pop("layers"), f.create_group("layers")), "not a readable profile"),
    "layers-plain": (lambda f: (f.pop("layers"), f.create_dataset("layers", data=[1.0])), "not a readable profile"),
    "no-scores": (lambda f: f.pop("scores"), "not a readable profile"),
    "no-damage": (lambda f: f.pop("scores/output"), "not a readable profile"),
    "facts-broken": (lambda f: f.attrs.modify("scenes", "[1"), "not a readable profile"),
    "shape": (
        lambda f: (f.pop("scores/output/depth"), f.create_dataset("scores/output/depth", data=np.zeros((2, 2)))),
        r"scores/output/depth has shape (2, 2), expected (2, 3)",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_refused(path: Path, change: Callable[[h5py.File], object], message: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    assert message in refused(path)


def link_out(file: h5py.File) -> None:
    """Damage that lies in another file."""
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as theirs:
        theirs["depth"] = DAMAGE["depth"]
    del file["scores/output/depth"]
    file["scores/output/depth"] = h5py.ExternalLink(str(other), "/depth")


def link_within(file: h5py.File) -> None:
    del file["scores/output/depth"]
    file["scores/output/depth"] = h5py.SoftLink("/scores/output/pose_enc")


def store_outside(file: h5py.File) -> None:
    other = Path(file.filename).with_name("values.bin")
    other.write_bytes(DAMAGE["depth"].tobytes())
    del file["scores/output/depth"]
    outside = [(str(other), 0, other.stat().st_size)]
    file.create_dataset("scores/output/depth", (2, 3), "f8", external=outside)


def make_virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), "f8")
    layout[:] = h5py.VirtualSource(file.filename, "scores/output/pose_enc", (2, 3))
    del file["scores/output/depth"]
    file.create_virtual_dataset("scores/output/depth", layout)


def claim_terabytes(file: h5py.File) -> None:
    del file["changes/depth"]
    file.create_dataset("changes/depth", (2, 3, 10**6, 10**6), "f4", chunks=(1, 1, 10, 10))


def lie_about_damage(file: h5py.File) -> None:
    """With a digest made anew, as somebody would who knows how."""
    file["scores/output/depth"][0, 1] = 0.0
    file.attrs["digest"] = content_digest(file)


HARMFUL: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external-link": (link_out, "is a link, which may lead out of the file"),
    "soft-link": (link_within, "is a link"),
    "external-storage": (store_outside, "not stored in the file as it is"),
    "virtual": (make_virtual, "not stored in the file as it is"),
    "terabytes": (claim_terabytes, "more than the file has"),
    "value": (lambda f: f["scores/output/depth"].write_direct(np.zeros((2, 3))), "digest is not that of its content"),
    "fact": (lambda f: f.attrs.modify("seed", 4), "digest is not that of its content"),
    "no-digest": (lambda f: f.attrs.pop("digest"), "digest is not that of its content"),
    "lie": (lie_about_damage, "scores/output/depth is not the mean square of changes/depth"),
}


@pytest.mark.parametrize(("change", "message"), HARMFUL.values(), ids=HARMFUL)
def test_what_lies_elsewhere_or_has_changed_is_refused(
    path: Path, change: Callable[[h5py.File], object], message: str
) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    assert message in refused(path)


def test_only_foreign_profiles_are_read_in_a_child_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this user's tool has written, wherever it lies now, is not foreign; one changed byte makes it so."""
    tried: list[object] = []
    monkeypatch.setattr("sensitivity.store.try_first", lambda _read, what: tried.append(what))
    np.testing.assert_array_equal(open_profile(path).activations("fp32", LAYERS[0].name), TOKENS)
    copied = path.with_name("copied.h5")
    copied.write_bytes(path.read_bytes())
    open_profile(copied)
    assert tried == []
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(path.parent / "of-another"))
        open_profile(copied)
    assert tried == [copied]
    with h5py.File(path, "r+") as file:
        file["scores/output/depth"][0, 1] *= 2
    with pytest.raises(InputError, match="digest is not that of its content"):
        open_profile(path)
    assert tried == [copied, path]


def test_large_activations_are_left_to_their_own_digests(path: Path) -> None:
    """So that opening takes no longer where there are more; what is changed in them is refused where it is read."""
    many = np.ones((1, 100, 100), dtype=np.float32)
    with writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS, FORMATS) as writer:
        fill(writer)
        writer.activations("fp32", "many", 0, 1, many[0])
    content = path.read_bytes()
    begin = content.index(many.tobytes())
    for at, is_left_out in ((begin - 1, False), (begin, True), (begin + many.nbytes - 1, True)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert is_signed(path) == is_left_out
    path.write_bytes(content[:begin] + b"\x01" + content[begin + 1 :])
    with pytest.raises(InputError, match="are not those that were written"):
        open_profile(path).activations("fp32", "many")


def test_activations_that_have_changed_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file[f"activations/fp32/{LAYERS[0].name}"][1, 2, 3] += 1
    with pytest.raises(InputError, match="are not those that were written"):
        open_profile(path).activations("fp32", LAYERS[0].name)


@pytest.mark.parametrize("limit", [0, 100, 2048, 5000, 9000])
def test_a_full_disk_leaves_the_old_profile_and_no_partial_file(path: Path, limit: int) -> None:
    """In a child process, whose files may take so many bytes; the library must not end it."""
    before = path.read_bytes()

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS, FORMATS) as writer:
            fill(writer)

    with pytest.raises(InputError, match=r"cannot write .*profile\.h5: File too large; make room"):
        try_first(write, path)
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [(path.name, before)]


def test_a_signal_while_a_profile_is_written_counts_between_two_datasets(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where it came, in the midst of a write that HDF5 had asked for."""
    before, write, came = path.read_bytes(), _Disk.write, []

    def interrupted(disk: _Disk, data: object) -> int:
        if not came:
            came.append("in a write")
            signal.raise_signal(signal.SIGTERM)
        came.append("the rest of it")
        return write(disk, data)

    monkeypatch.setattr(_Disk, "write", interrupted)
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with (
            pytest.raises(TerminatedError),
            interruptible(),
            writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS, FORMATS) as writer,
        ):
            writer.file.flush()
            assert came[:2] == ["in a write", "the rest of it"]
            fill(writer)
            raise AssertionError("goes on")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [(path.name, before)]


def test_facts_that_are_no_unicode_come_back(path: Path) -> None:
    """As names of folders may be: bytes that are no UTF-8 are lone surrogates in Python."""
    named = FACTS | {"command": "profile --run a\udcff\udcfe", "seed": 3, "model": "k\u00fcche"}
    with writing_profile(path, LAYERS, SCHEMES, CANDIDATES, named, FORMATS) as writer:
        fill(writer)
    facts = open_profile(path).facts
    assert {name: facts[name] for name in named} == named


def test_a_full_disk_ends_the_writing_at_the_next_dataset(path: Path) -> None:
    """What the disk did not take is kept in memory for HDF5, so there must not be more and more of it."""
    tokens, reached = np.ones((1, 100_000), dtype=np.float32), path.with_name("reached")

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
        with writing_profile(path, LAYERS, SCHEMES, CANDIDATES, FACTS) as writer:
            fill(writer)
            for number in range(10):
                reached.write_text(str(number))
                writer.activations("fp32", f"layer.{number}", 0, 1, tokens)

    with pytest.raises(InputError, match="File too large"):
        try_first(write, path)
    assert reached.read_text() == "3"


def test_questions_that_a_profile_cannot_answer_are_refused(path: Path) -> None:
    profile: Profile = open_profile(path)
    with pytest.raises(InputError, match="no scores for 'int2'; it has int8_per_channel_sym"):
        profile.column("int2")
    with pytest.raises(InputError, match=r"no activations of depth_head\.projects\.0 under fp32"):
        profile.activations("fp32", "depth_head.projects.0")
