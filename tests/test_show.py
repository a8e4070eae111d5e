"""``ferbench show``: the stored sizes are those of the networks."""

import json

import pytest
from support.sizes import PROTOCOLS, computed

from ferbench.execution.inspection import SIZES, describe, size_name
from ferbench.methods import recipes
from ferbench.protocol import protocol as protocols

STORED = json.loads(SIZES.read_text(encoding="utf-8"))
AGAIN = "run `python tests/support/sizes.py`"


def test_all_shipped_methods_with_a_network_are_stored_and_no_others():
    names = {name.rpartition("/")[0] for name in STORED}
    shipped = {f"{name}/{preset}" for name in recipes.names() for preset in recipes.presets(name)}
    assert names < shipped
    networks = ("wslgan", "cnn", "sequences", "generative", "backbone")
    methods = {name for name in recipes.names() if recipes.resolve(name, "", "").family_name in networks}
    assert {name.partition("/")[0] for name in names} == methods


@pytest.mark.parametrize("name", sorted({name.partition("/")[0] for name in STORED}))
def test_stored_sizes_are_those_of_the_network(name):
    preset = "demo" if "demo" in recipes.presets(name) else "tiny"
    assert STORED[size_name(name, preset, 7)] == computed(name, preset, protocols.load("synth")), AGAIN


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STORED))
def test_all_stored_sizes_are_those_of_the_networks(name):
    method, preset, classes = name.split("/")
    assert STORED[name] == computed(method, preset, PROTOCOLS[int(classes)]), AGAIN


def test_a_changed_recipe_is_shown_with_its_own_sizes():
    sizes = dict(describe("small-cnn", "tiny", "synth", ()))
    changed = dict(describe("small-cnn", "tiny", "synth", ("network.widths=[4,6,8]",)))
    (title, *_), (other, *_) = sizes, changed
    assert title == other
    assert sizes[title]["network parameters"] != changed[title]["network parameters"]
