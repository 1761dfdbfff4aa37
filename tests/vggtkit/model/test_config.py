"""A config file is read strictly."""

import json

import pytest

from vggtkit.core.errors import InputError
from vggtkit.model.config import TINY, VGGTConfig


def test_json_round_trip() -> None:
    assert VGGTConfig.from_json(TINY.to_json()) == TINY


def test_absent_keys_are_those_of_vggt_1b() -> None:
    assert VGGTConfig.from_json("{}") == VGGTConfig()


def test_unknown_key_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"here\.json: unknown key 'embed_dmi'; the known keys are .*embed_dim"):
        VGGTConfig.from_json('{"embed_dmi": 64}', "here.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("embed_dim", "64"),
        ("embed_dim", 64.0),
        ("embed_dim", True),
        ("embed_dim", None),
        ("embed_dim", [64, 64]),
        ("embed_dim", {"size": 64}),
        ("embed_dim", 0),
        ("patch_size", -14),
        ("dpt_out_channels", 256),
        ("dpt_out_channels", [256, 512, 1024, "1024"]),
        ("dpt_layer_idx", [4, 11, 17, -1]),
        ("dpt_layer_idx", [[4], 11, 17, 23]),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"here\.json: {key} must be .*whole number.*found"):
        VGGTConfig.from_json(json.dumps({key: value}), "here.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dpt_out_channels": [1, 2, 3]}, "need 4 entries"),
        ({"dpt_layer_idx": [0, 1, 2, 3, 4]}, "need 4 entries"),
        ({"aggregator_depth": 23}, r"dpt_layer_idx \[4, 11, 17, 23\] reaches past aggregator_depth 23"),
        ({"img_size": 500}, "img_size 500 is no multiple of patch_size 14"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VGGTConfig.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'embed_dim': 64}", "here.json: not valid JSON"),
        ("", "here.json: not valid JSON"),
        ("[1, 2]", "here.json: expected a JSON object, found list"),
    ],
)
def test_what_is_no_json_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VGGTConfig.from_json(text, "here.json")
