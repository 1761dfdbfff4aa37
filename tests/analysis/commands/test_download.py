"""``download`` on the command line: what it says, its JSON, and no network."""

from pathlib import Path

import pytest

from tests.analysis.commands.running import assert_refused, cli, the_json
from tests.vggtkit.scenes.serving import serving
from tests.vggtkit.scenes.test_eth3d_download import CONTENT, packed
from vggtkit.scenes import eth3d_download


def test_a_scene_is_fetched_and_the_next_command_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as site:
        monkeypatch.setattr(eth3d_download, "SITE", site.url)
        site.files["/courtyard_dslr_undistorted.7z"] = packed(
            {name.replace("room/", "courtyard/"): text for name, text in CONTENT["undistorted"].items()}
        )
        options = ("--to", tmp_path, "--no-depth")
        values = the_json(cli("download", "eth3d", "courtyard", *options, "--json"))
        again = cli("download", "eth3d", "courtyard", *options)
    assert values["path"] == str(tmp_path / "courtyard")
    assert list(values["archives"]) == ["courtyard_dslr_undistorted.7z"]
    assert f"--scenes eth3d:{tmp_path / 'courtyard'}" in again.out
    assert "already" in again.err


def test_without_network_it_says_what_to_do_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as gone:
        pass
    monkeypatch.setattr(eth3d_download, "SITE", gone.url)
    ran = cli("download", "eth3d", "courtyard", "--to", tmp_path)
    assert_refused(
        ran, "cannot be fetched", *(f"{gone.url}/courtyard_dslr_{kind}.7z" for kind in CONTENT), str(tmp_path)
    )


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("tum", "desk"), ("download tum", "only eth3d", "docs/data.md")),
        (("eth3d", "garden"), ("garden", "courtyard")),
        (("eth3d", "courtyard", "--to", "{file}"), ("--to {file}", "another folder")),
    ],
)
def test_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], messages: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    file = tmp_path / "file"
    ran = cli("download", *(argument.format(file=file) for argument in arguments))
    assert_refused(ran, *(message.format(file=file) for message in messages))
