"""Feature pipelines: every descriptor against its formula, in float64, and what all of them promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferbench.methods.features.covariance import WindowCovariances, pixel_features, window_covariances, windows
from ferbench.methods.features.expressionlets import ModePooling, Modes, cuboids, log, ridged, vec
from ferbench.methods.features.gradients import (
    SpaceTimeGradients,
    averaging,
    axes,
    box_descriptors,
    mean_gradients,
    quantised,
)
from ferbench.methods.features.lomo import OrderedTemplates, learn_templates, orders, place
from ferbench.methods.interface import Video
from ferbench.methods.recipes import resolve
from ferbench.seeds import generator

SOLIDS = {"icosahedron": 10, "dodecahedron": 6}


def recipe(name, *words, preset="tiny"):
    return resolve(name, preset, "ckplus", tuple(words)).recipe.descriptor


def drawn(frames=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 48, 48)).astype(np.float64)


def positive(rng, size, count=()):
    root = rng.normal(size=(*count, size, size))
    return root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(size)


# HOG 3D


@pytest.mark.parametrize("solid", SOLIDS)
def test_the_normals_are_those_of_the_regular_solid(solid):
    normals = axes(solid)
    assert normals.shape == (SOLIDS[solid], 3)
    cosines = np.abs(normals @ normals.T)
    # Angles between the axes of neighbouring faces: arccos(√5/3) and arccos(1/√5).
    nearest = {"icosahedron": 5**0.5 / 3, "dodecahedron": 5**-0.5}[solid]
    np.testing.assert_allclose(np.sort(cosines, axis=1)[:, -2], nearest, atol=1e-12)
    np.testing.assert_allclose(np.diag(cosines), 1.0)


@pytest.mark.parametrize("solid", SOLIDS)
def test_a_gradient_along_a_face_s_normal_fills_its_bin_alone(solid):
    normals = axes(solid)
    both = np.concatenate([normals, -normals])
    np.testing.assert_allclose(quantised(3 * both, solid, half=False), 3 * np.eye(len(both)), atol=1e-9)
    np.testing.assert_allclose(
        quantised(3 * both, solid, half=True), 3 * np.tile(np.eye(len(normals)), (2, 1)), atol=1e-9
    )


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=3), st.sampled_from(sorted(SOLIDS)), st.booleans())
def test_a_histogram_sums_to_the_gradient_s_length(g, solid, half):
    bins = quantised(np.array(g), solid, half)
    assert (bins >= 0).all()
    np.testing.assert_allclose(bins.sum(), np.linalg.norm(g), rtol=1e-9, atol=1e-9)


def test_quantisation_is_the_formula():
    g = np.array([0.3, -1.2, 0.7])
    normals = axes("icosahedron")
    full = np.maximum(np.concatenate([normals @ g, -normals @ g]) - 5**0.5 / 3 * np.linalg.norm(g), 0)
    np.testing.assert_allclose(
        quantised(g, "icosahedron", half=False), full * np.linalg.norm(g) / full.sum(), atol=1e-9
    )


def test_means_over_boxes_are_those_of_the_pixels():
    video = drawn()
    x, y = averaging([0, 8], 16, 4, 48), averaging([4], 24, 3, 48)
    t = averaging([0], 6, 2, 6)
    got = mean_gradients(video, x, y, t)
    dt, dy, dx = np.gradient(video)
    for i, j, k in itertools.product(range(2), range(3), range(8)):
        left = (0, 8)[k // 4] + k % 4 * 4
        box = np.s_[3 * i : 3 * i + 3, 4 + 8 * j : 12 + 8 * j, left : left + 4]
        np.testing.assert_allclose(got[i, j, k], [dx[box].mean(), dy[box].mean(), dt[box].mean()], atol=1e-10)


def test_borders_between_pixels_take_shares_of_them():
    fine = averaging([0.5], 2.0, 1, 4)  # half of pixel 0, all of pixel 1, half of pixel 2
    np.testing.assert_allclose(fine, [[0.25, 0.5, 0.25, 0.0]])
    np.testing.assert_allclose(averaging([0], 3, 16, 3).sum(axis=1), 1.0)  # 16 parts of three frames


def test_a_mirrored_video_s_bins_change_places():
    descriptor_recipe = recipe("hog3d", "descriptor.half=false", "descriptor.cells=[3,3,2]")
    video = drawn()
    starts, size = [[0]] * 3, (48, 48, 6)
    straight = box_descriptors(video, descriptor_recipe, starts, size).reshape(2, 3, 3, -1)
    mirrored = box_descriptors(video[:, :, ::-1], descriptor_recipe, starts, size).reshape(2, 3, 3, -1)
    both = np.concatenate([axes(descriptor_recipe.solid), -axes(descriptor_recipe.solid)])
    partner = (np.abs(both[:, None] * [-1, 1, 1] - both[None]).sum(axis=2)).argmin(axis=1)
    assert sorted(partner) == list(range(20))
    np.testing.assert_allclose(mirrored, straight[:, :, ::-1][..., partner], atol=1e-9)


def test_a_video_s_descriptor_has_the_descriptor_recipesize_and_cells_of_length_1():
    for words, size in (((), 2 * 36 * 20), (("descriptor.half=true", "descriptor.cells=[5,5,4]"), 1000)):
        descriptor = SpaceTimeGradients(recipe("hog3d", *words)).describe(Video(drawn(3).astype(np.uint8)))
        assert descriptor.shape == (size,)
        np.testing.assert_allclose(np.linalg.norm(descriptor.reshape(-1, 20 if not words else 10), axis=1), 1.0)


def test_codewords_are_shares_of_the_boxes_that_change():
    descriptor = SpaceTimeGradients(recipe("hog3d", preset="words"))
    raw = np.stack([descriptor.describe(Video(drawn(12, seed).astype(np.uint8))) for seed in range(3)])
    still = descriptor.describe(Video(np.full((3, 48, 48), 90, dtype=np.uint8)))
    assert not still.any()
    descriptor.fit(raw, np.arange(3), lambda use: 1)
    shares = descriptor.transform(np.concatenate([raw, still[None]]))
    np.testing.assert_allclose(shares.sum(axis=1), [1, 1, 1, 0])


# Cov3D


@pytest.mark.parametrize("size", [3, 15])
def test_the_riemannian_distance_is_invariant(size):
    from pyriemann.geometry.distance import distance_riemann

    rng = np.random.default_rng(size)
    x, y = positive(rng, size), positive(rng, size)
    a = rng.normal(size=(size, size)) + 2 * np.eye(size)

    def distance(x, y):
        root = _power(x, -0.5)
        return np.sqrt(np.trace(log(root @ y @ root) @ log(root @ y @ root)))

    assert distance(a @ x @ a.T, a @ y @ a.T) == pytest.approx(distance(x, y), rel=1e-6)
    assert distance(np.linalg.inv(x), np.linalg.inv(y)) == pytest.approx(distance(x, y), rel=1e-6)
    assert distance(x, y) == pytest.approx(distance_riemann(x, y), rel=1e-9)


def test_covariances_of_windows_are_numpy_s():
    features = pixel_features(drawn(8), flow=False)
    assert features.shape == (8, 48, 48, 9)
    places = windows((8, 48, 48), (24, 48))
    assert len(places) == 40
    got = window_covariances(features, places)
    for window, covariance in zip(places, got, strict=True):
        expected = np.cov(features[window].reshape(-1, 9), rowvar=False)
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(covariance / scale, expected / scale, atol=1e-10)


def test_pixel_features_are_those_named():
    video = np.zeros((4, 48, 48)) + 2.0 * np.arange(48) + 3.0 * np.arange(48)[:, None]  # Ix = 2, Iy = 3
    z = pixel_features(video, flow=False)
    np.testing.assert_allclose(z[1, 5, 7], [7, 5, 1, 2, 3, 0, 0, 13**0.5, np.arctan(1.5)], atol=1e-12)


def test_flow_is_that_of_a_moving_picture():
    from scipy.ndimage import gaussian_filter

    picture = gaussian_filter(np.random.default_rng(0).normal(size=(48, 64)), 3)
    picture = 128 + 60 * picture / np.abs(picture).max()
    video = np.stack([picture[:, 8 - step : 56 - step] for step in range(4)])  # one pixel to the right a frame
    u, v, u_t, v_t, divergence, vorticity = np.moveaxis(pixel_features(video, flow=True)[1, 12:36, 12:36, 9:], -1, 0)
    assert np.abs(u.mean()) == pytest.approx(1, abs=0.1)
    assert np.abs(v).mean() < 0.1
    for still in (u_t, v_t, divergence, vorticity):
        assert np.abs(still).mean() < 0.1


def test_the_mean_of_two_covariances_is_half_way_between_them_and_the_tangent_map_is_the_formula():
    rng = np.random.default_rng(4)
    raw = np.repeat(positive(rng, 5, (2, 1)), 2, axis=0)[[0, 2]]
    descriptor = WindowCovariances(recipe("cov3d", "descriptor.ridge=1e-9"))
    descriptor.fit(raw, np.arange(2), lambda use: 0)
    x, y = ridged(raw[:, 0] * descriptor.scale[:, None] * descriptor.scale, 1e-9)
    root, inverse = _power(x, 0.5), _power(x, -0.5)
    middle = root @ _power(inverse @ y @ inverse, 0.5) @ root
    np.testing.assert_allclose(descriptor.means[0], middle, atol=1e-7)
    inverse = _power(middle, -0.5)
    np.testing.assert_allclose(descriptor.transform(raw)[0], vec(log(inverse @ x @ inverse)), atol=1e-6)


# STM-ExpLet


@given(st.integers(0, 1000))
def test_vec_keeps_inner_products(seed):
    rng = np.random.default_rng(seed)
    x, y = (log(one) for one in positive(rng, 4, (2,)))
    assert vec(x) @ vec(y) == pytest.approx(np.trace(x @ y), rel=1e-9, abs=1e-9)


def test_log_is_pyriemann_s_and_exp_undoes_it():
    from pyriemann.geometry.base import logm
    from scipy.linalg import expm

    x = positive(np.random.default_rng(2), 6, (3,))
    np.testing.assert_allclose(log(x), np.stack([logm(one) for one in x]), atol=1e-12)
    np.testing.assert_allclose(expm(log(x)[0]), x[0], atol=1e-10)


def test_a_constant_window_is_positive_by_its_ridge():
    assert np.isfinite(log(ridged(np.zeros((2, 3, 3)), 1e-3))).all()


def modes(count=3, size=4, seed=0):
    rng = np.random.default_rng(seed)
    return Modes(rng.dirichlet(np.ones(count)), rng.normal(size=(count, size)), rng.uniform(0.5, 2, (count, size)))


def test_densities_are_the_mixture_s():
    from scipy.stats import multivariate_normal

    mixture, x = modes(), np.random.default_rng(1).normal(size=(5, 4))
    expected = [
        np.log(w) + multivariate_normal(mean, np.diag(variance)).logpdf(x)
        for w, mean, variance in zip(mixture.weights, mixture.means, mixture.variances, strict=True)
    ]
    np.testing.assert_allclose(mixture.log_densities(x), np.array(expected).T, atol=1e-10)


def test_the_order_of_features_changes_no_expressionlet():
    mixture, rng = modes(), np.random.default_rng(1)
    x = rng.normal(size=(50, 4))
    np.testing.assert_allclose(
        mixture.expressionlets(rng.permutation(x), 12, 1e-3), mixture.expressionlets(x, 12, 1e-3), atol=1e-12
    )


def test_doubled_frames_change_none_where_twice_as_many_are_kept():
    mixture, x = modes(), np.random.default_rng(1).normal(size=(50, 4))
    np.testing.assert_allclose(
        mixture.expressionlets(np.repeat(x, 2, axis=0), 24, 1e-3), mixture.expressionlets(x, 12, 1e-3), atol=1e-12
    )


def test_one_mode_and_all_features_give_the_log_covariance():
    x = np.random.default_rng(1).normal(size=(50, 4))
    got = log(modes(1).expressionlets(x, 50, 1e-3))[0]
    covariance = np.cov(x, rowvar=False, bias=True)
    np.testing.assert_allclose(got, log(covariance + 1e-3 * np.trace(covariance) / 4 * np.eye(4)), atol=1e-10)


def test_a_mixture_fits_clusters_better_than_one_sphere():
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(place, 1, (60, 3)) for place in (-3, 0, 3)])
    many = Modes.fitted(x, 6, "diag", 1)
    one = Modes.fitted(x, 1, "spherical", 1)

    def likelihood(mixture):
        return np.logaddexp.reduce(mixture.log_densities(x), axis=1).sum()

    assert likelihood(many) > likelihood(one)
    assert len(Modes.fitted(x[:4], 6, "diag", 1).weights) == 4  # not more modes than features


def test_cuboids_carry_their_place():
    descriptor_recipe = recipe("stm-explet", "descriptor.frames=6")
    descriptions = cuboids(drawn(6), descriptor_recipe)
    assert descriptions.shape == ((6 - 3 + 1) * 25, 4 * 8 + 3)
    np.testing.assert_allclose(descriptions[:, -3:].mean(axis=0), 0, atol=1e-12)  # centred on the video's middle
    np.testing.assert_allclose(descriptions[0, -3:], [8 / 48 - 0.5, 8 / 48 - 0.5, 1.5 / 6 - 0.5])
    np.testing.assert_allclose(descriptions[1, -3:], [16 / 48 - 0.5, 8 / 48 - 0.5, 1.5 / 6 - 0.5])  # x runs first


def test_what_is_learned_of_modes_uses_the_recipe():
    descriptor = ModePooling(recipe("stm-explet", "descriptor.modes=4", "descriptor.discriminant=false"))
    raw = np.stack([descriptor.describe(Video(drawn(4, seed).astype(np.uint8))) for seed in range(3)])
    descriptor.fit(raw, np.arange(3), lambda use: 3)
    assert descriptor.transform(raw).shape == (3, 4 * 27 * 28 // 2)
    assert not descriptor.labelled


# LOMo


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1, 0, 3), (2, 0, 4), (2, 2, 7), (3, 1, 8), (3, 0, 5)]))
def test_the_best_placement_is_that_of_trying_them_all(seed, sizes):
    count, gap, frames = sizes
    rng = np.random.default_rng(seed)
    fits, costs = rng.normal(size=(3, count, frames)), rng.normal(size=(3, len(orders(count))))
    placed = place(fits, costs, gap)
    named = {tuple(order): number for number, order in enumerate(orders(count))}
    for model in range(3):

        def value(at, model=model):
            order = tuple(np.argsort(at))
            return fits[model, range(count), at].mean() + costs[model, named[order]]

        every = [
            at
            for at in itertools.permutations(range(frames), count)
            if all(abs(a - b) > gap for a, b in itertools.combinations(at, 2))
        ]
        best = max(every, key=value)
        assert placed.values[model] == pytest.approx(value(best))
        assert tuple(placed.frames[model]) == best
        assert tuple(orders(count)[placed.order[model]]) == tuple(np.argsort(best))


def test_orders_worth_nothing_let_frames_be_shuffled():
    rng = np.random.default_rng(3)
    models = OrderedTemplates(rng.normal(size=(4, 3, 5)), np.zeros((4, 6)), gap=0)
    x = rng.normal(size=(6, 10, 5))
    np.testing.assert_allclose(models.scores(x[:, rng.permutation(10)]), models.scores(x), atol=1e-12)
    templates = np.eye(5)[None, :3].repeat(2, axis=0)  # each template's best frame is another one
    x[:, 4:7] += 20 * np.eye(5)[:3]
    expected = np.einsum("nti,mi->nmt", x, np.eye(5)[:3]).max(axis=2).mean(axis=1)
    np.testing.assert_allclose(OrderedTemplates(templates, np.zeros((2, 6)), 0).scores(x)[:, 0], expected)


def planted(count, seed):
    """Two events A and B in noise, in one order or the other: the same content."""
    events, rng = np.random.default_rng(0).normal(size=(2, 8)), np.random.default_rng(seed)
    x, signs = rng.normal(0, 0.2, (count, 12, 8)), np.where(np.arange(count) % 2, 1.0, -1.0)
    for sample, sign in zip(x, signs, strict=True):
        first, second = sorted(rng.choice(np.arange(0, 12, 2), 2, replace=False))
        sample[[first, second]] += events if sign > 0 else events[::-1]
    return x, signs[:, None]


@pytest.mark.parametrize(("ordered", "low", "high"), [(True, 0.95, 1.0), (False, 0.3, 0.65)])
def test_an_order_of_events_is_learned_by_what_orders_are_worth_alone(ordered, low, high):
    x, signs = planted(120, 1)
    values = {"templates": 2, "gap": 1, "penalty": 1e-4, "rate": 0.05, "epochs": 40, "restarts": 2}
    settings = recipe("lomo", *(f"descriptor.{name}={value}" for name, value in values.items()))
    models = learn_templates(x, signs, settings, generator(0), ordered=ordered)
    tested, truth = planted(200, 2)
    assert low <= ((models.scores(tested) > 0) == (truth > 0)).mean() <= high


def test_a_step_of_descent_is_the_formula():
    rng = np.random.default_rng(8)
    w, c, x = rng.normal(0, 0.1, (2, 3, 5)), rng.normal(0, 0.1, (2, 6)), rng.normal(size=(9, 5))
    w[1] *= 100  # far beyond the margin for one of both signs
    sign = np.array([-1.0, 1.0])
    models = OrderedTemplates(w.copy(), c.copy(), gap=1)
    placed = place(w @ x.T, c, 1)
    assert sign[1] * placed.values[1] > 1
    models.step(x, sign, penalty=0.1, rate=0.05)
    np.testing.assert_array_equal(models.w[1], w[1])
    np.testing.assert_array_equal(models.c[1], c[1])
    np.testing.assert_allclose(models.w[0], (1 - 0.1 * 0.05) * w[0] - 0.05 * x[placed.frames[0]] / 3)
    expected = c[0].copy()
    expected[placed.order[0]] -= 0.05
    np.testing.assert_allclose(models.c[0], expected)


def _power(x, exponent):
    values, vectors = np.linalg.eigh(x)
    return (vectors * values**exponent) @ vectors.T
