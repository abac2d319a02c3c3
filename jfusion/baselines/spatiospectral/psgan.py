"""PSGAN: a two-stream encoder and decoder, trained against a critic that judges patches.

Liu, Zhou, Xu, Liu, Wang, "PSGAN: A Generative Adversarial Network for Remote Sensing Image Pan-Sharpening", IEEE TGRS
59(12), 2021, doi:10.1109/TGRS.2020.3042974, arXiv 1805.03371; code: github.com/zhysora/PSGan-Family.

Network. No layer has a bias or a norm, and before each but the first of a stream comes a LeakyReLU of slope 0.2. The
interpolated image M and the guide P each pass two 3x3 convolutions to 32 channels and a 2x2 one of stride 2 to 64.
Both halves, side by side, pass two 3x3 convolutions to 128 channels, and one of stride 2 to 256; at a quarter of the
size follow a 1x1 and a 3x3 convolution. The way back is a 2x2 transposed convolution to 128 beside the 128 of that
size, a 3x3 one to 128, a transposed one to 128 beside the 32 + 32 of the streams, a 3x3 one to 64 and a 3x3 one to the
bands, with a ReLU. Nothing of M is added. 1,885,856 parameters for 4 bands, 1,889,312 for 8.

Critic. M and an image, side by side, pass 3x3 convolutions to 32, 64, 128 (stride 2), 256 and 1: a score for each 8x8
pixels, 16 x 16 of them for a patch of 128. It does not see P. 391,680 parameters for 4 bands. With X the target and D
the logistic function of a score, means over pixels and scores,

    critic:   - log D(M, X) - log(1 - D(M, product))
    network:  - log D(M, product) + 100 |X - product|

with images in digital numbers of 11 bits: on images of unit size the weight is 204,700.

Training: Adam at a constant 1e-4 with beta_1 = 0.5 for both, the critic first, 50 epochs of 53,857 QuickBird patches of
128 x 128 pan pixels, 32 a batch. All kernels start from N(0, 0.02^2).

Differences from the release:

- Scores enter the loss as they are. The release takes log(D + 1e-12), which loses its gradient where D is 0 or 1 in
  float32; its users report losses that are not finite.
- Images are divided by their 99.9 % quantile, where the release takes digital numbers. Without biases both networks are
  homogeneous, so with the weight in the same unit this changes neither the network nor the slope of a score, only how
  soon D saturates: scores of digital numbers are thousands of times larger.
- About half of the output bands begin below zero, where the ReLU lets no gradient through. If that is so for most of a
  band in the training data, the band's kernel starts with the other sign, which is as likely.
- The network meets the critic as its step left it; the release computes the gradients of both on the same pass.
- Any size: below and to the right M and P are mirrored up to multiples of 4 guide pixels, and the product is cropped.
- Any ratio, since M is bilinearly interpolated; more than one guide band: the guide's stream takes all of them.

FU-PSGAN (transposed convolution instead of interpolation) and ST-PSGAN (one stream) of the same paper are not here.
"""

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Adversary, Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.attention import padded
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import normal
from jfusion.layers.layouts import as_is, tensorflow_transposed_kernel
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.resample import upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.adversarial import NON_SATURATING
from jfusion.training.losses import mean_absolute_error

PIXELS = 100.0 * 2047
"""Weight of the mean absolute error against the adversarial term: 100 for each of the 11 bits' digital numbers."""


def _adam(steps: int) -> optax.GradientTransformation:
    return optax.adam(1e-4, b1=0.5)


RECIPE = Recipe(
    optimiser=_adam,
    steps=84_200,
    patch=128,
    batch=32,
    note="Mean absolute error in 11-bit numbers times 100 plus the adversarial term, Adam 1e-4 with beta_1 = 0.5 for "
    "network and critic; images divided by their 99.9 % quantile (release: digital numbers).",
)


def leaky(x: Array) -> Array:
    """LeakyReLU of slope 0.2."""
    return nnx.leaky_relu(x, 0.2)


def _conv(inputs: int, outputs: int, size: int, strides: int = 1, *, rngs: nnx.Rngs) -> Conv:
    return Conv(inputs, outputs, size, strides=strides, use_bias=False, kernel_init=normal(0.02), rngs=rngs)


def _double(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> ConvTranspose:
    return ConvTranspose(inputs, outputs, 2, use_bias=False, kernel_init=normal(0.02), rngs=rngs)


class Stream(nnx.Module):
    """What is extracted from one of the two images."""

    def __init__(self, bands: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.first, self.second = _conv(bands, width, 3, rngs=rngs), _conv(width, width, 3, rngs=rngs)
        self.halve = _conv(width, 2 * width, 2, 2, rngs=rngs)

    def __call__(self, image: Array) -> tuple[Array, Array]:
        """Features of the image's size, and twice as many of half the size."""
        fine = self.second(leaky(self.first(image)))
        return fine, self.halve(leaky(fine))


class PSGAN(nnx.Module):
    """The network of Liu et al., 2021; ``width`` is the number of channels of a stream."""

    def __init__(self, bands: Bands, *, width: int = 32, rngs: nnx.Rngs) -> None:
        self.lr_stream, self.guide_stream = (Stream(n, width, rngs=rngs) for n in (bands.lr, bands.guide))
        self.merge = _conv(4 * width, 4 * width, 3, rngs=rngs)
        self.half = _conv(4 * width, 4 * width, 3, rngs=rngs)
        self.quarter = nnx.List(
            (
                _conv(4 * width, 8 * width, 3, 2, rngs=rngs),
                _conv(8 * width, 8 * width, 1, rngs=rngs),
                _conv(8 * width, 8 * width, 3, rngs=rngs),
            )
        )
        self.to_half = _double(8 * width, 4 * width, rngs=rngs)
        self.half_again = _conv(8 * width, 4 * width, 3, rngs=rngs)
        self.to_full = _double(4 * width, 4 * width, rngs=rngs)
        self.full = _conv(6 * width, 2 * width, 3, rngs=rngs)
        self.tail = _conv(2 * width, bands.lr, 3, rngs=rngs)

    def before_relu(self, interpolated: Array, guide: Array) -> Array:
        """The last convolution of two images ``(batch, height, width, band)`` whose sizes are multiples of 4."""
        fine_lr, half_lr = self.lr_stream(interpolated)
        fine_guide, half_guide = self.guide_stream(guide)
        half = self.half(leaky(self.merge(leaky(jnp.concatenate([half_guide, half_lr], -1)))))
        x = half
        for layer in self.quarter:
            x = layer(leaky(x))
        x = self.half_again(leaky(jnp.concatenate([self.to_half(leaky(x)), half], -1)))
        x = jnp.concatenate([self.to_full(leaky(x)), fine_guide, fine_lr], -1)
        return self.tail(leaky(self.full(leaky(x))))

    def __call__(self, observation: Observation, model: ObservationModel) -> Array:
        """``(batch, height, width, band)``, none below zero, in the units of the observation, from "lr" and "guide"."""
        height, width = observation["guide"].shape[1:3]
        images = interpolated(observation, model), observation["guide"]
        return nnx.relu(self.before_relu(*(padded(image, (4, 4)) for image in images)))[:, :height, :width]


class Critic(nnx.Module):
    """The critic of Liu et al., 2021; ``width`` is the number of channels of its first layer."""

    def __init__(self, bands: Bands, *, width: int = 32, rngs: nnx.Rngs) -> None:
        sizes = (2 * bands.lr, width, 2 * width, 4 * width, 8 * width, 1)
        self.layers = nnx.List(
            _conv(inputs, outputs, 3, strides, rngs=rngs)
            for inputs, outputs, strides in zip(sizes, sizes[1:], (2, 2, 2, 1, 1), strict=False)
        )

    def __call__(self, interpolated: Array, image: Array) -> Array:
        """Scores of an image, ``(batch, height / 8, width / 8, 1)`` rounded up, beside the interpolated image."""
        x = self.layers[0](jnp.concatenate([interpolated, image], -1))
        for layer in self.layers[1:]:
            x = layer(leaky(x))
        return x


def interpolated(observation: Observation, model: ObservationModel) -> Array:
    """M: the low-resolution image on the guide's grid, as OpenCV enlarges an image by default."""
    return upsample(observation["lr"], model.grid, "bilinear")


def turn_up(network: PSGAN, observation: Observation, model: ObservationModel, target: Array) -> None:
    """Changes the sign of the kernels of output bands that are mostly below zero, on one batch of training patches."""

    def middle(image: Array) -> Array:
        top, left = (max(size - RECIPE.patch, 0) // 2 for size in image.shape[1:3])
        return padded(image[: RECIPE.batch, top : top + RECIPE.patch, left : left + RECIPE.patch], (4, 4))

    images = interpolated(observation, model), observation["guide"]
    product = nnx.jit(PSGAN.before_relu)(network, *map(middle, images))
    network.tail.kernel[...] *= jnp.where((product > 0).mean((0, 1, 2)) < 0.5, -1, 1)


def scores(
    critic: Critic, network: PSGAN, observation: Observation, model: ObservationModel, target: Array
) -> tuple[Array, Array, Array]:
    """The critic's scores of target and product, and the product."""
    product, beside = network(observation, model), interpolated(observation, model)
    return critic(beside, target), critic(beside, product), product


def network_loss(
    network: PSGAN, critic: Critic, observation: Observation, model: ObservationModel, target: Array, key: Array
) -> Array:
    """What the network lowers."""
    real, fake, product = scores(critic, network, observation, model, target)
    return NON_SATURATING.network(real, fake) + PIXELS * jnp.mean(jnp.abs(product - target))


def critic_loss(
    critic: Critic, network: PSGAN, observation: Observation, model: ObservationModel, target: Array, key: Array
) -> Array:
    """What the critic lowers."""
    real, fake, _ = scores(critic, network, observation, model, target)
    return NON_SATURATING.critic(real, fake)


def _release(network: PSGAN) -> Table:
    """The names in the release, within the scope "generator"."""
    convolutions = {
        "merge": "encoder_4", "half": "encoder_5", "quarter/0": "encoder_6", "quarter/1": "decoder_7",
        "quarter/2": "decoder_8", "half_again": "decoder_10", "full": "decoder_12", "tail": "decoder_13",
    }  # fmt: skip
    for stream, number in (("lr_stream", 1), ("guide_stream", 2)):
        for k, layer in enumerate(("first", "second", "halve")):
            convolutions[f"{stream}/{layer}"] = f"encoder_{k + 1}_{number}"
    table: Table = {f"{ours}/kernel": (f"{theirs}/conv/filter", as_is) for ours, theirs in convolutions.items()}
    for ours, theirs in (("to_half", "decoder_9"), ("to_full", "decoder_11")):
        table[f"{ours}/kernel"] = f"{theirs}/strided_conv/filter", tensorflow_transposed_kernel
    return table


PSGAN_ROW = System(
    name="psgan",
    title="PSGAN",
    family="gan",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="Q. Liu, H. Zhou, Q. Xu, X. Liu, Y. Wang",
        year=2021,
        title="PSGAN: A Generative Adversarial Network for Remote Sensing Image Pan-Sharpening",
        venue="IEEE Transactions on Geoscience and Remote Sensing 59(12)",
        doi="10.1109/TGRS.2020.3042974",
        code="https://github.com/zhysora/PSGan-Family",
    ),
    summary="An encoder and decoder with a stream for each image, trained to be near the target and to be taken for it "
    "by a critic of patches.",
    method=Trained(
        network=PSGAN,
        loss=mean_absolute_error,
        recipe=RECIPE,
        initialise=turn_up,
        tiny={"width": 8, "critics": {"width": 4}},
        compact={"width": 16, "critics": {"width": 16}},
        adversary=Adversary(critics=Critic, loss=network_loss, critics_loss=critic_loss, optimiser=_adam),
        originals=(
            Original(
                file="model-N, which model/psgan/psgan.py of the release saves; it comes without weights",
                table=_release,
                bands=Bands(4, 1, 4),
                scale=1,
                note="Images are digital numbers; the network is homogeneous, so that it does the same in any unit.",
            ),
        ),
    ),
    differences="The logarithm of the critic's probability is taken without saturation; images are divided by their "
    "99.9 % quantile; output bands that begin below zero start with the other sign; the network meets the critic after "
    "its step; images are mirrored up to multiples of 4; the guide's stream takes all guide bands.",
    parameters=(1_885_856, Bands(4, 1, 4)),
)
