"""`view`, through the command line: it is seen over HTTP, and Ctrl-C is how it ends."""

import socket
import urllib.request
from pathlib import Path
from typing import NoReturn

import pytest

from analysis.steps import viewing
from tests.analysis.commands.running import assert_refused, cli, the_json

pytest.importorskip("viser", reason="viser is in the extra 'view'")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_both_are_served_until_the_user_ends_it(run: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, pages = free_port(), []

    def look_and_end(_seconds: float) -> NoReturn:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
            pages.append(answer.read())
        raise KeyboardInterrupt

    monkeypatch.setattr(viewing, "sleep", look_and_end)
    asked = ("--images", photo_folder, "--max-images", 3, "--run", run, "--port", port)
    ran = cli("view", *asked, "--json")
    values = the_json(ran)
    assert values["address"] == f"http://127.0.0.1:{port}"
    assert values["sides"] == ["FP32", str(run / "model-plan.safetensors")]
    assert values["differences"]["points_mean"] > 0
    assert b"<html" in pages[0].lower()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_what_cannot_be_served(photo_folder: Path, model_folder: Path) -> None:
    asked = ("view", "--images", photo_folder, "--model", model_folder)
    assert_refused(cli(*asked, "--port", 70000), "--port 70000: give a whole number, 1 to 65535")
    assert_refused(cli(*asked, "--execute", "int8"), "no packed weights")
    assert_refused(cli("view", "--images", photo_folder / "absent"), "does not exist")
