"""A config file is read strictly."""

import json
from dataclasses import asdict

import pytest

from vggtkit.core.errors import InputError
from vggtkit.model.config import HEADS, LARGEST_SIZES, TINY, VGGTConfig
from vggtkit.model.loading import skeleton


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


@pytest.mark.parametrize("name", sorted(LARGEST_SIZES))
def test_a_size_past_its_limit_is_named_with_the_limit_before_anything_is_made(name: str) -> None:
    value = LARGEST_SIZES[name] + 1
    for size in (value, 10**12, 10**4000):
        with pytest.raises(
            InputError, match=rf"here\.json: {name} is .*, more than the limit of {LARGEST_SIZES[name]:,}"
        ) as caught:
            VGGTConfig.from_json(
                json.dumps({name: [size] * 4 if name.startswith("dpt_") and name != "dpt_features" else size}),
                "here.json",
            )
        assert len(str(caught.value)) < 200


def test_every_size_has_a_limit_well_above_vggt_1b() -> None:
    sizes = {name: value for name, value in asdict(VGGTConfig()).items() if name != "heads"}
    assert sizes.keys() == LARGEST_SIZES.keys()
    for name, value in sizes.items():
        assert max(value if isinstance(value, tuple) else [value]) * 2 < LARGEST_SIZES[name], name


def test_a_network_that_no_machine_holds_is_refused_before_it_has_weights() -> None:
    config = VGGTConfig(embed_dim=2**16, patch_size=7)
    with pytest.raises(InputError, match=r"a network of [\d,]{15,} parameters, the limit is 100,000,000,000"):
        skeleton(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 15}, "embed_dim 1024 is no multiple of 4 times num_heads 15"),
        ({"embed_dim": 1040, "num_heads": 26, "vit_num_heads": 3}, "embed_dim 1040 is no multiple of vit_num_heads 3"),
        ({"camera_num_heads": 7}, "token_dim 2048 is no multiple of camera_num_heads 7"),
        ({"track_num_heads": 7}, "track_hidden_size 384 is no multiple of track_num_heads 7"),
    ],
)
def test_channels_that_heads_cannot_share_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VGGTConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("left_out", HEADS)
def test_the_published_switches_name_the_heads(left_out: str) -> None:
    text = json.dumps(
        {f"enable_{head}": head != left_out for head in HEADS} | {"embed_dim": 1024, "model_type": "vggt"}
    )
    assert VGGTConfig.from_json(text) == VGGTConfig(heads=tuple(head for head in HEADS if head != left_out))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enable_point": "no"}, "enable_point must be true or false; found 'no'"),
        ({f"enable_{head}": False for head in HEADS}, "name one or more of camera, depth, point, track"),
        ({"enable_point": True, "heads": ["camera"]}, "by heads or by enable_..., not by both"),
        ({"enable_everything": True}, "unknown key 'enable_everything'"),
        ({"evil\n\x1b[31m": 1}, r"unknown key 'evil\\n\\x1b\[31m'"),
    ],
)
def test_switches_that_say_nothing_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VGGTConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["[" * 1000 + "]" * 1000, '{"embed_dim": ' * 1000 + "1" + "}" * 1000, "9" * 5000])
def test_nesting_and_digits_without_end_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^here\.json: ") as caught:
        VGGTConfig.from_json(text, "here.json")
    assert str(caught.value).isprintable()
