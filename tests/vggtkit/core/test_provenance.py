"""Facts that files carry, and the refusal of files that belong elsewhere."""

import json
import sys

import numpy as np
import pytest
import torch

from vggtkit.core import provenance as origin
from vggtkit.core.errors import InputError
from vggtkit.core.provenance import provenance, require_same, silent


def test_facts_name_versions_and_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/cli.py", "plan", "--budget", "6MB"])
    facts = provenance(seed=3, model="tiny")
    assert facts["seed"] == 3
    assert facts["model"] == "tiny"
    assert facts["command"] == "cli.py plan --budget 6MB"
    assert facts["torch"] == torch.__version__
    assert facts["numpy"] == np.__version__
    assert facts.keys() >= {"tool", "tool_version", "python", "threads", "processor"}
    json.dumps(facts)


def test_a_tool_that_is_not_installed_has_a_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "TOOL", "no-such-distribution")
    assert provenance()["tool_version"] == "source"


def test_other_fingerprints_are_refused_with_both_values() -> None:
    expected, found = {"model_fingerprint": "aaaa", "seed": 1}, {"model_fingerprint": "bbbb", "seed": 2}
    require_same("plan.json", expected, {**found, "model_fingerprint": "aaaa"}, ("model_fingerprint",))
    with pytest.raises(InputError, match=r"plan\.json: model fingerprint is bbbb, but aaaa is needed") as caught:
        require_same("plan.json", expected, found, ("model_fingerprint", "seed"))
    assert "\n" not in str(caught.value)


def test_a_fact_that_only_one_side_states_differs() -> None:
    with pytest.raises(InputError, match="seed is None, but 1 is needed"):
        require_same("profile.h5", {"seed": 1}, {}, ("seed",))


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    silent("stage", 1, 2)
    assert capsys.readouterr() == ("", "")
