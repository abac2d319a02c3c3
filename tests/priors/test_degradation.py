"""Learned degradations fill what an observation model lacks, and only that."""

import jax
import jax.numpy as jnp
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.operators import Grid, ObservationModel, SpectralResponse
from priors.degradation import Degradation, spectral_support

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
