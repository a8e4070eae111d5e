"""Recipes: presets, ablations, overrides."""

import pytest

from ferbench.errors import DataError, UsageError
from ferbench.methods.recipes import names, resolve, variants
from ferbench.methods.wslgan.densenet import DenseNet
from ferbench.methods.wslgan.network import AttentionMapGenerator
from ferbench.methods.wslgan.recipe import PRESETS, Architecture
from ferbench.protocol import protocol as protocols


def test_the_paper_s_numbers_are_the_paper_preset_s():
    recipe = resolve("wslgan", "paper", "ckplus").recipe
    assert (recipe.architecture.extractor_layers, recipe.architecture.generator_layers) == ((6, 6, 6), (6, 12, 24))
    assert (recipe.attention.lr, recipe.pretrain.lr, recipe.finetune.lr) == (0.1, 0.1, 0.01)
    for stage in (recipe.attention, recipe.pretrain, recipe.finetune):
        assert (stage.batch, stage.momentum, stage.weight_decay, stage.augment) == (100, 0.9, 0.0005, "expand")
    assert recipe.finetune.drops == (0.5, 0.75)
    assert (recipe.losses.margin, recipe.losses.eyes, recipe.losses.contrastive) == (10.0, 1.0, 1.0)


@pytest.mark.parametrize(("dataset", "weight"), [("ckplus", 2), ("oulu", 5), ("rafdb", 2)])
def test_lambda_3_follows_the_dataset(dataset, weight):
    recipe = resolve("wslgan", "paper", dataset).recipe
    assert recipe.losses_of(recipe.finetune).whole == weight
    assert recipe.losses_of(recipe.pretrain.as_only_training()).whole == weight  # trained on the target only
    assert recipe.losses_of(recipe.pretrain).whole == 2  # so that all targets share what was pre-trained


def test_every_ablation_has_every_preset():
    assert names()[0] == "wslgan"
    assert set(variants("wslgan")) == {"wslgan", "gfnet", "lfnet", "wslgan-sum", "wslgan-concat", "wslgan-wcl"}
    for name in variants("wslgan"):
        for preset in PRESETS:
            assert resolve(name, preset, "ckplus").preset == preset


def test_an_ablation_changes_its_argument_alone():
    full = resolve("wslgan", "light", "ckplus").recipe.model_dump()
    less = resolve("wslgan-sum", "light", "ckplus").recipe.model_dump()
    assert full["architecture"]["fusion"] == "sfu"
    assert less["architecture"]["fusion"] == "sum"
    assert {k: v for k, v in full.items() if k != "architecture"} == {
        k: v for k, v in less.items() if k != "architecture"
    }


def test_overrides_reach_any_field_and_wrong_ones_are_explained():
    recipe = resolve("wslgan", "tiny", "ckplus", ("finetune.epochs=3", "interpretation.pairing=balanced")).recipe
    assert (recipe.finetune.epochs, recipe.interpretation.pairing) == (3, "balanced")
    with pytest.raises(UsageError, match=r"did you mean finetune\.epochs"):
        resolve("wslgan", "tiny", "ckplus", ("finetune.epoch=3",))
    with pytest.raises(DataError, match="pairing"):
        resolve("wslgan", "tiny", "ckplus", ("interpretation.pairing=sometimes",))
    with pytest.raises(UsageError, match="did you mean wslgan"):
        resolve("wslgam", "tiny", "ckplus")
    with pytest.raises(UsageError, match="no preset"):
        resolve("wslgan", "huge", "ckplus")


@pytest.mark.parametrize("name", ["wslgan", "small-cnn", "dtagn", "derl"])
def test_the_optimizer_is_part_of_the_identity_only_where_it_is_not_sgd(name):
    protocol = protocols.load("ckplus")
    plain = resolve(name, "tiny", "ckplus")
    sgd, adamw = (resolve(name, "tiny", "ckplus", (f"finetune.optimizer={kind}",)) for kind in ("sgd", "adamw"))
    assert sgd == plain
    identity = plain.family.identity("fold", plain, protocol)
    stage = {**identity["stage"], "optimizer": "adamw"}
    assert adamw.family.identity("fold", adamw, protocol) == {**identity, "stage": stage}
    assert "optimizer" not in identity["stage"]


def test_the_former_name_of_a_table_is_read_and_records_keep_it(tmp_path):
    (tmp_path / "former.toml").write_text(
        'extends = "wslgan"\nname = "former"\n[preset.tiny.readings]\npairing = "all"\n[dataset.ckplus.readings]\nborder = "zero"\n'
    )
    former = resolve(str(tmp_path / "former.toml"), "tiny", "ckplus", ("readings.normalise=half",))
    interpretation = former.recipe.interpretation
    assert (interpretation.pairing, interpretation.border, interpretation.normalise) == ("all", "zero", "half")
    stored = former.model_dump(mode="json", by_alias=True)["recipe"]
    assert stored["readings"]["pairing"] == "all"
    assert former.family.recipe.model_validate(stored) == former.recipe
    assert former.family.identity("fold", former, protocols.load("ckplus"))["readings"] == stored["readings"]


def test_each_training_weighs_the_contrastive_terms_for_itself():
    words = ("pretrain.contrastive=0.5", "finetune.contrastive=0.2")
    method, protocol = resolve("wslgan", "tiny", "ckplus", words), protocols.load("ckplus")
    pretrain, fold = (method.family.identity(kind, method, protocol) for kind in ("pretrain", "fold"))
    assert (pretrain["losses"]["contrastive"], fold["losses"]["contrastive"]) == (0.5, 0.2)
    assert "contrastive" not in fold["stage"]
    with pytest.raises(UsageError, match="field of the recipe"):
        resolve("wslgan", "tiny", "ckplus", ("attention.contrastive=0.2",))


def test_a_preset_shares_the_attention_maps_of_the_one_that_it_names_and_nothing_else():
    wide, tiny = (resolve("wslgan", preset, "ckplus") for preset in ("wide", "tiny"))
    family, protocol = wide.family, protocols.load("ckplus")
    assert family.identity("attention", wide, protocol) == family.identity("attention", tiny, protocol)
    assert family.owner("attention", wide) == family.owner("attention", tiny) == ("wslgan", "tiny")
    assert [family.owner(kind, wide)[1] for kind in ("pretrain", "fold")] == ["wide", "wide"]
    shapes = [method.recipe.architecture for method in (wide, tiny)]
    assert [shape.growth for shape in shapes] == [32, 12]
    assert [shape.generator()["growth"] for shape in shapes] == [12, 12]


def test_a_preset_may_extend_another_and_learn_attention_maps_of_its_own():
    light, tiny = (resolve("wslgan", preset, "ckplus") for preset in ("light", "tiny"))
    assert light.recipe.amg == ""
    assert light.recipe.finetune.model_copy(update={"epochs": tiny.recipe.finetune.epochs}) == tiny.recipe.finetune
    assert light.recipe.interpretation == tiny.recipe.interpretation
    assert [method.recipe.architecture.map_size for method in (light, tiny)] == [12, 6]


def test_the_amg_s_growth_is_told_where_it_is_not_the_network_s():
    assert "generator_growth" not in Architecture(growth=12).identity()
    assert "generator_growth" not in Architecture(growth=12, generator_growth=12).identity()
    assert Architecture(growth=32, generator_growth=12).identity()["generator_growth"] == 12
    assert "generator_growth" not in Architecture(growth=32, generator_growth=12, features="global").identity()
    amg = AttentionMapGenerator(Architecture(growth=32, generator_growth=4, generator_layers=(1, 1, 1)))
    assert amg.eyes.backbone.channels == DenseNet((1, 1, 1), 4).channels
