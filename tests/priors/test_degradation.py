"""Learned degradations fill what an observation model lacks, and only that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.operators import BlockAverage, Grid, ObservationModel, SpectralResponse
from priors.degradation import Degradation, spectral_support, unknown_psf, unknown_srf

BANDS = Bands(9, 2, 4)


def test_spectral_support_is_inclusive():
    support = spectral_support(jnp.asarray([400.0, 500.0, 600.0]), jnp.asarray([[400.0, 500.0], [550.0, 700.0]]))
    assert support.tolist() == [[True, True, False], [False, False, True]]


def test_only_unknown_parts_are_learned():
    known = SpectralResponse(jnp.ones((2, 9)) / 9)
    model = ObservationModel({"lr": None, "guide": known}, Grid.nested(4))
    degradation = Degradation(model, BANDS)
    filled = degradation(model)
    assert filled.known
    assert filled["guide"] is known
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(degradation, nnx.Param))) == 16
    nothing = Degradation(filled, BANDS)
    assert not jax.tree.leaves(nnx.state(nothing, nnx.Param))
    assert nothing(filled)["lr"] is filled["lr"]


def parameters(module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    ("form", "taps", "learned"), [("pixel", 4, 16), ("overlapping", 7, 49), ("wide", 32, 1024), ("mean", 4, 0)]
)
def test_forms_of_a_psf(form, taps, learned):
    psf = unknown_psf(form, Grid.nested(4), "free")
    assert psf.size == taps
    assert parameters(psf) == learned
    x = jnp.asarray(np.random.default_rng(0).random((1, 32, 36, 2)), jnp.float32)
    if form == "overlapping":
        np.testing.assert_allclose(psf().psf, 1 / 49, rtol=1e-5)
    else:
        np.testing.assert_allclose(psf()(x), BlockAverage(4)(x), atol=1e-6)


def test_forms_of_a_spectral_response():
    support, start = jnp.arange(9)[None] // 5 == jnp.arange(2)[:, None], jnp.eye(2, 9)
    cases = {"dense": (None, None), "support": (support, None), "middle": (support, None), "started": (None, start),
             "fixed": (None, start)}  # fmt: skip
    forms = {form: unknown_srf(form, BANDS, "clipped", *given) for form, given in cases.items()}  # type: ignore[arg-type]
    assert {form: parameters(srf) for form, srf in forms.items()} == dict.fromkeys(cases, 18) | {"fixed": 0}
    np.testing.assert_allclose(forms["dense"]().srf, 1 / 9, rtol=1e-6)
    for form in ("support", "middle"):
        np.testing.assert_array_equal(forms[form]().srf > 0, support)
        flat = np.ptp(np.asarray(forms[form]().srf)[np.asarray(support)]) < 0.06  # rows of 5 and of 4 bands
        assert flat == (form == "support")
    for form in ("started", "fixed"):
        np.testing.assert_array_equal(forms[form]().srf, start)


def test_mistaken_forms_are_named():
    with pytest.raises(InputError, match="one of pixel, overlapping"):
        unknown_psf("gaussian", Grid.nested(4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'dense' of a spectral response takes nothing, but start came"):
        unknown_srf("dense", BANDS, start=jnp.eye(2, 9))
    with pytest.raises(InputError, match="'started' of a spectral response takes start, but nothing came"):
        unknown_srf("started", BANDS)
    with pytest.raises(InputError, match=r"= \(2, 9\), but is \(9, 2\)"):
        unknown_srf("fixed", BANDS, start=jnp.eye(9, 2))


def test_a_form_by_name_fills_the_model():
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(4))
    degradation = Degradation(model, BANDS, psf="mean", srf="started", start=jnp.eye(2, 9))
    assert parameters(degradation) == 18
    assert degradation(model).known


def test_clipped_weights_have_no_gradient_in_common():
    """A constant image is the same whatever the weights, so nothing wears them down to a single one."""
    model = ObservationModel({"lr": None, "guide": None}, Grid.nested(4))
    graph, weights, rest = nnx.split(Degradation(model, BANDS, ("clipped", "clipped")), nnx.Param, ...)

    def seen(weights):
        filled = nnx.merge(graph, weights, rest)(model)
        return filled["lr"](jnp.ones((1, 8, 8, 1))).sum() + filled["guide"](jnp.ones((1, 9))).sum()

    for gradient in jax.tree.leaves(jax.grad(seen)(weights)):
        np.testing.assert_allclose(gradient, 0, atol=1e-5)
