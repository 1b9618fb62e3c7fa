"""Latency predictors: features, families, held-out scores, files that run no code."""

import json
from dataclasses import replace

import lightgbm
import numpy as np
import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.latency import MODELS, Features, LatencyPredictor, doubts, fit_predictor, score
from mos_fairseq.latency.features import averages, per_layer, physical_terms
from mos_fairseq.latency.predictor import fit_family
from mos_fairseq.latency.regression import _TREES, Trees
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import small_space
from tests.spaces import RANK_SPACE

SPACE = small_space()
SUBNETS = [SPACE.sample_subnet("predictor", i) for i in range(160)]


def made_up_latency(subnet: Subnet) -> float:
    """Linear in sums over layers, with a step that no line can follow."""
    total = 3.0 + 0.01 * sum(subnet.encoder_ffn_embed_dim) + 1.5 * subnet.decoder_layers
    total += 0.02 * sum(subnet.decoder_ffn_embed_dim) + 0.3 * sum(subnet.cross_spans)
    return total


LATENCIES = [made_up_latency(subnet) for subnet in SUBNETS]


def test_features_of_ranks():
    space = SearchSpace.from_dict(RANK_SPACE)
    one = {"encoder_ffn_embed_dim": 17, "encoder_attention_heads": 1}
    subnet = space.smallest().replace(encoder_layers=3, encoder_ffn_rank=(10, 3, 6), **one)
    means = averages(subnet)
    assert means["encoder_ffn_rank"] == pytest.approx(19 / 3)
    terms = subnet.family.terms(means)
    assert terms["encoder_layers*factors"] == pytest.approx(3 * 19 / 3 * (12 + 17))
    whole = space.smallest().replace(encoder_layers=1, encoder_ffn_rank=10)  # does not pay: the product has 12 x 17
    assert whole.family.terms(averages(whole))["encoder_layers*factors"] == 12 * 17
    assert "encoder_layers*encoder_ffn_rank" not in subnet.family.terms(averages(SUBNETS[0]))


def test_features_of_a_subnet():
    subnet = Subnet(
        encoder_embed_dim=20,
        decoder_embed_dim=28,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_embed_dim=17,
        encoder_attention_heads=4,
        decoder_ffn_embed_dim=(37, 19),
        decoder_attention_heads=(4, 2),
        decoder_ende_attention_heads=(1, 4),
        decoder_arbitrary_ende_attn=(2, -1),  # only one encoder layer to attend to
        qkv_dim=24,
    )
    assert list(averages(subnet).values()) == [20, 1, 17, 4, 28, 2, 28, 3, 2.5, 1]
    assert per_layer(subnet, SPACE) == [
        *[17, 0, 0],
        *[4, 0, 0],
        *[37, 19, 0],
        *[4, 2, 0],
        *[1, 4, 0],
        *[1, 1, 0],
    ]
    terms = physical_terms(averages(subnet), subnet.family)
    for product in (17 * 20, (37 + 19) * 28, 2 * 1, (1 + 4) * 28):  # sums over layers
        assert product in terms


@pytest.mark.parametrize("family", MODELS)
def test_each_family_learns(family):
    train, test = np.arange(120), np.arange(120, 160)
    features, latencies = Features.of_subnets(SUBNETS, SPACE), np.array(LATENCIES)
    model = fit_family(family, features.take(train), latencies[train], seed=1)
    found = score(latencies[test], model.predict_features(features.take(test)))
    constant = score(latencies[test], np.full(40, latencies[train].mean()))
    assert found["mape"] < (1.0 if family == "ridge" else 0.5 * constant["mape"])
    assert (model.ridge is None) == (family == "boosting") and (model.trees is None) == (family == "ridge")


@pytest.mark.slow
def test_the_best_family_is_chosen_by_held_out_error():
    predictor, held_out = fit_predictor(Features.of_subnets(SUBNETS, SPACE), LATENCIES, SPACE)
    assert predictor.family == min(MODELS, key=lambda f: predictor.scores[f]["mape"]) != "boosting"
    assert predictor.scores[predictor.family] == score(LATENCIES, held_out)
    assert predictor.scores["ridge"]["mape"] < predictor.scores["boosting"]["mape"]  # the synthetic data is linear
    again, _ = fit_predictor(Features.of_subnets(SUBNETS, SPACE), LATENCIES, SPACE)
    assert (again.predict(SUBNETS) == predictor.predict(SUBNETS)).all()


@pytest.mark.parametrize("family", MODELS)
def test_a_saved_predictor_predicts_the_same(tmp_path, family):
    features = Features.of_subnets(SUBNETS, SPACE)
    fitted = fit_family(family, features, np.array(LATENCIES), seed=1)
    predictor = LatencyPredictor(family, SPACE, {family: {"mape": 1.0}}, fitted.ridge, fitted.trees)
    predictor = replace(predictor, training=("a", "b"), held_out=("c",))
    predictor.save(tmp_path / "predictor.json")
    loaded = LatencyPredictor.load(tmp_path / "predictor.json")
    assert (loaded.predict(SUBNETS) == predictor.predict(SUBNETS)).all()
    assert (loaded.space, loaded.family, loaded.scores) == (SPACE, family, predictor.scores)
    assert (loaded.training, loaded.held_out) == (("a", "b"), ("c",))
    assert [path.name for path in tmp_path.iterdir()] == ["predictor.json"]


def test_a_line_never_predicts_that_time_runs_backwards():
    model = fit_family("ridge", Features.of_subnets(SUBNETS, SPACE), np.array(LATENCIES), seed=1)
    tiny = Features(np.zeros_like(model.ridge.mean)[None] - 1e6, np.zeros((1, 1)))
    assert model.ridge.predict(tiny)[0] == pytest.approx(0.1 * min(LATENCIES))


def test_scores_against_a_direct_computation():
    found = score([10.0, 20.0, 40.0], [11.0, 18.0, 40.0])
    assert found["mape"] == pytest.approx(100 * (0.1 + 0.1 + 0) / 3)
    assert found["rmse"] == pytest.approx(((1 + 4) / 3) ** 0.5)
    assert found["kendall_tau"] == 1
    assert found["r2"] == pytest.approx(1 - 5 / ((40 / 3) ** 2 + (10 / 3) ** 2 + (50 / 3) ** 2))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "mos-latency-predictor 1"}', "cos\nsystem\n(S'touch owned'\ntR.", "[" * 100_000],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "predictor.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a latency predictor"):
        LatencyPredictor.load(path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("trees", "nonsense"),
        ("trees", {"left": [0]}),  # a walk without end
        ("trees", {"right": [10**9]}),
        ("trees", {"feature": [999]}),
        ("trees", {"roots": [-1]}),
        ("trees", {"threshold": [None]}),
        ("ridge", {"weights": [1.0]}),
        ("ridge", {"intercept": "1e999"}),
        ("search_space", {"encoder_layers": [2]}),  # other features
        ("measured", []),
        ("measured", {"reference_ms": 0}),
        ("measured", {"reference_ms": "10"}),
        ("measured", {"reference_ms": True}),
        ("training", "key"),
        ("held_out", [1]),
    ],
)
def test_damaged_predictors_are_refused(tmp_path, part, change):
    fitted = fit_family("both", Features.of_subnets(SUBNETS, SPACE), np.array(LATENCIES), seed=1)
    path = tmp_path / "p.json"
    LatencyPredictor("both", SPACE, {}, fitted.ridge, fitted.trees).save(path)
    data = json.loads(path.read_text())
    if part in ("trees", "ridge") and isinstance(change, dict):
        change = data[part] | {
            key: value + data[part][key][1:] if key != "weights" and isinstance(value, list) else value
            for key, value in change.items()
        }
    elif part == "search_space":
        change = data[part] | change
    path.write_text(json.dumps(data | {part: change}))
    with pytest.raises(InputError, match="not a latency predictor"):
        LatencyPredictor.load(path)


def test_trees_predict_what_lightgbm_predicts():
    features, target = Features.of_subnets(SUBNETS, SPACE), np.log(LATENCIES)
    trees = Trees.fit(features, target, seed=1)
    data = lightgbm.Dataset(features.everything, target - np.median(target), params={"verbosity": -1})
    booster = lightgbm.train(_TREES | {"num_leaves": 7, "seed": 1}, data, num_boost_round=300)
    expected = np.median(target) + booster.predict(features.everything)
    np.testing.assert_allclose(trees.predict(features), expected, rtol=1e-12)


@pytest.mark.parametrize("family", MODELS)
def test_the_unit_of_time_does_not_matter(family):
    features, y = Features.of_subnets(SUBNETS, SPACE), np.array(LATENCIES)
    one, thousand = (fit_family(family, features, factor * y, 1).predict_features(features) for factor in (1, 1000))
    np.testing.assert_allclose(thousand, 1000 * one, rtol=1e-4)


def test_bad_data():
    features = Features.of_subnets(SUBNETS, SPACE)
    with pytest.raises(InputError, match="19 subnets to fit a predictor to: at least 20"):
        fit_predictor(features.take(np.arange(19)), LATENCIES[:19], SPACE)
    with pytest.raises(InputError, match="positive and finite"):
        fit_predictor(features, [float("nan"), *LATENCIES[1:]], SPACE)
    with pytest.raises(InputError, match="folds is 1"):
        fit_predictor(features, LATENCIES, SPACE, folds=1)
    predictor, _ = fit_predictor(features, LATENCIES, SPACE, folds=2)
    with pytest.raises(InputError, match="encoder_embed_dim=16 is not in the search space"):
        predictor.predict([small_space(encoder_embed_dim=[16]).largest()])


def test_a_predictor_that_is_unsure_says_so():
    good = {"mape": 3.25, "kendall_tau": 0.9}
    held_out, crossed = "of held-out subnets", "in cross-validation"
    assert doubts({}) is None and doubts({held_out: good, crossed: good}) is None
    found = doubts({held_out: good | {"kendall_tau": 0.5}, crossed: good})
    assert found.startswith("the predictor is unsure: of held-out subnets, Kendall's tau 0.50 is below 0.8; ")
    found = doubts({held_out: good, crossed: {"mape": 12.34, "kendall_tau": 0.7}})
    wanted = "in cross-validation, Kendall's tau 0.70 is below 0.8 and its error of 12.3 % is above 5 %; measure more"
    assert found.startswith(f"the predictor is unsure: {wanted}")
