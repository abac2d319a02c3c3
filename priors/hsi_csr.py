"""HSI-CSR: Fu, Zhang, Zheng, Zhang and Huang, "Hyperspectral Image Super-Resolution with Optimized RGB Guidance", 2019.

A network f maps every pixel of the guide Z to a spectrum, X = f(Z). It learns from the one pair: what the sensors see
of X must be Y and Z, and f must map the blurred guide B Z to Y. With a learned response in front of f, the same losses
design the guide's camera: `design_response`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn.initializers import variance_scaling

from jfusion.catalogue import Bands, Fitted, Paper, System
from jfusion.layers.conv import Conv
from jfusion.layers.responses import LearnedSrf
from jfusion.operators import Observation, ObservationModel, SpectralResponse, one_psf
from jfusion.progress import Progress, silent
from jfusion.tasks import SPATIOSPECTRAL
from priors.fit import Falling, Plan, Schedule, Stage, fit, fitter
from priors.pair import Pair, half_l2, misfits

SLOPE = 0.05
SPECTRAL = 50.0
"""Weight of the two losses against Y; that against Z has one."""

SMALLNESS = 99e-4
"""Weight of a designed response's squares, on top of the decay of all parameters."""

SMOOTHNESS = 0.1
"""Weight of the squared differences between neighbouring bands of a designed response."""


class SpectralNetwork(nnx.Module):
    """Convolutions with a 1x1 window, each of which sees the guide and the layer before (Fu et al., 2019).

    Args:
        bands: of the pair.
        width: features of a layer.
        layers: before the last, which makes the bands.
    """

    def __init__(self, bands: Bands, *, width: int = 64, layers: int = 4, rngs: nnx.Rngs) -> None:
        xavier = variance_scaling(1.0, "fan_in", "uniform")
        inputs = [bands.guide] + [bands.guide + width] * layers
        outputs = [width] * layers + [bands.lr]
        self.layers = nnx.List(
            [Conv(a, b, 1, kernel_init=xavier, rngs=rngs) for a, b in zip(inputs, outputs, strict=True)]
        )

    def __call__(self, guide: Array) -> Array:
        """``(..., height, width, guide band)`` to ``(..., height, width, band)``."""
        x = jax.nn.leaky_relu(self.layers[0](guide), SLOPE)
        for layer in self.layers[1:]:
            x = jax.nn.leaky_relu(layer(jnp.concatenate([guide, x], -1)), SLOPE)
        return x


class Design(nnx.Module):
    """The network and, before it, a learned spectral response."""

    def __init__(self, bands: Bands, *, rngs: nnx.Rngs, **sizes: Any) -> None:
        self.generator = SpectralNetwork(bands, rngs=rngs, **sizes)
        self.response = LearnedSrf(bands, "clipped")


def fusion_loss(generator: SpectralNetwork, pair: Pair, key: Array) -> tuple[Array, Array]:
    """``(50 |B f(Z) - Y|^2 + 50 |f(B Z) - Y|^2 + |R f(Z) - Z|^2) / 2``, sums; the output is f(Z)."""
    y, z = pair.observation["lr"], pair.observation["guide"]
    product, coarse = generator(z), generator(one_psf(pair.model["lr"])(z))
    lr, guide = misfits(half_l2, pair.model, product, pair)
    return SPECTRAL * (lr + half_l2(coarse, y, pair.weight["lr"])) + guide, product


def design_loss(module: Design, pair: Pair, key: Array) -> tuple[Array, SpectralResponse]:
    """``50 (|B f(R X) - Y|^2 + |f(R Y) - Y|^2) / 2``, where the pair's guide is X itself, and R small and smooth.

    The output is R.
    """
    observed, response = pair.observation, module.response()
    product, coarse = (module.generator(response(observed[name])) for name in ("guide", "lr"))
    spectral = [half_l2(made, observed["lr"], pair.weight["lr"]) for made in (pair.model["lr"](product), coarse)]
    size = SMALLNESS * jnp.sum(response.srf**2) + SMOOTHNESS * jnp.sum(jnp.diff(response.srf, axis=-1) ** 2)
    return SPECTRAL * sum(spectral) + size / 2, response


def project(module: Design) -> None:
    """Clips the response at zero and divides each row by its sum."""
    module.response.weights.project()


def _slow_biases(updates: optax.Updates) -> optax.Updates:
    def scaled(path: tuple[Any, ...], update: Array) -> Array:
        return 0.1 * update if "bias" in jax.tree_util.keystr(path) else update

    return jax.tree_util.tree_map_with_path(scaled, updates)


OPTIMISER = optax.chain(
    optax.flatten(
        optax.chain(optax.clip_by_global_norm(1024.0), optax.add_decayed_weights(1e-4), optax.scale_by_adam())
    ),
    optax.stateless(lambda updates, params: _slow_biases(updates)),
)
"""Caffe's Adam: gradients of a norm up to 1024, then a decay of the parameters; biases learn at a tenth of the rate."""

FUSION = Stage(fusion_loss, 5000, Falling(1e-2, 0.1, 5000 / 2000), OPTIMISER)
DESIGN = Stage(design_loss, 10_000, Schedule(1e-3), OPTIMISER, project=project)


@fitter
def fit_hsi_csr(
    observation: Observation,
    model: ObservationModel,
    **sizes: Any,
) -> Plan:
    """Fits HSI-CSR to a pair; see `jfusion.catalogue.Fitter` and `priors.fit.fit`.

    Args:
        observation: `lr` and `guide`.
        model: both operators must be known.
        sizes: of `SpectralNetwork`.

    Raises:
        InputError: an operator is not known.
    """
    pair, scale = Pair.of(observation, model).normalised()
    bands = Bands.of(observation, model)
    for name in ("lr", "guide"):
        model[name]

    def build(key: Array) -> SpectralNetwork:
        return SpectralNetwork(bands, rngs=nnx.Rngs(key), **sizes)

    return Plan(build, pair, (FUSION,), scale, lambda product: (product, model))


def design_response(
    image: Array,
    model: ObservationModel,
    count: int,
    *,
    key: Array,
    effort: float = 1.0,
    budget: float | None = None,
    progress: Progress = silent,
    **sizes: Any,
) -> SpectralResponse:
    """The spectral response of a guide from which f rebuilds the spectra of an image best (Fu et al., 2019).

    This is for a camera that is yet to be built: nothing of it enters `fit_hsi_csr`, whose guide has its response
    already.

    Args:
        image: hyperspectral image to design on, ``(1, height, width, band)``; sides are multiples of the ratio.
        model: the operator of `lr` must be known; that of `guide` does not enter.
        count: bands of the guide.
        key: random key.
        effort, budget, progress: see `priors.fit.fit`.
        sizes: of `SpectralNetwork`.

    Returns:
        The response, not negative, with rows of sum one.

    Raises:
        InputError: the operator of `lr` is not known, or the image does not fit it.
    """
    pair, _ = Pair.of({"lr": model["lr"](image), "guide": image}, model).normalised()
    bands = Bands(image.shape[-1], count, model.ratio)

    def build(key: Array) -> Design:
        return Design(bands, rngs=nnx.Rngs(key), **sizes)

    return fit(build, pair, (DESIGN,), key=key, effort=effort, budget=budget, progress=progress).output


HSI_CSR = System(
    name="hsi_csr",
    title="HSI-CSR",
    family="prior",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="Y. Fu, T. Zhang, Y. Zheng, D. Zhang, H. Huang",
        year=2019,
        title="Hyperspectral Image Super-Resolution with Optimized RGB Guidance",
        venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        doi="10.1109/CVPR.2019.01193",
        code="https://github.com/ColinTaoZhang/HSI-SR",
    ),
    summary="A pixelwise network maps the guide's bands to the spectrum, X = f(Z), fitted by 50 |B f(Z) - Y|^2 + 50 "
    "|f(B Z) - Y|^2 + |R f(Z) - Z|^2 (sums over pixels and bands).",
    method=Fitted(
        generator=SpectralNetwork,
        fit=fit_hsi_csr,
        steps=FUSION.steps,
        note="Adam at 1e-2, a tenth of it after 2,000 and 4,000 of 5,000 steps, biases at a tenth of the rate; "
        "gradients of a norm up to 1024, decay 1e-4. The paper's design of a guide's response is "
        "priors.hsi_csr.design_response (10,000 steps at 1e-3).",
    ),
    differences="The fit sees the whole pair at each step where the release draws 8 patches, so the sums are over the "
    "image. B is the pair's own PSF where the paper averages blocks, and B Z stands for the coarse guide that the "
    "release is given. A designed response is kept to rows that sum to one, where the release only clips it at zero. "
    "Selecting a response from a data set of cameras is not here. The pair is scaled to a largest magnitude of one.",
    parameters=(15_420, Bands(31, 3, 32)),
    needs_model=True,
)
