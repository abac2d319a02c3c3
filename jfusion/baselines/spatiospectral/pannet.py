"""PanNet: a residual network that sees only the high frequencies and adds what it finds to the interpolated image.

Yang, Fu, Hu, Huang, Ding, Paisley, "PanNet: A Deep Network Architecture for Pan-Sharpening", ICCV 2017,
doi:10.1109/ICCV.2017.193; code: the authors' for TensorFlow and its port in github.com/liangjiandeng/DLPan-Toolbox.

With M the low-resolution image, P the pan image and H(x) = x - box(x) their high frequencies (box is the mean over
5x5 pixels, each image at its own resolution, mirrored at the border),

    product = M interpolated + f(T H(M), H(P))

"Spectra mapping" is the first term; the rest is trained in the high frequencies alone, which sensors have in common. T
is a learned transposed convolution of twice the ratio (8x8, stride 4), f a 3x3 convolution to 32 channels with ReLU,
four residual blocks (3x3, ReLU, 3x3, plus the identity; no normalisation) and a 3x3 convolution back to the bands:
83,024 parameters for 8 bands, 77,640 for 4.

Training: mean squared error, batches of 32 patches of 64 x 64 pan pixels, data divided by 2^11 - 1. The TensorFlow code
makes 255,000 steps of Adam at a constant 1e-3 and starts from truncated-normal variance scaling (so does this); its
other branch is stochastic gradient descent with momentum and clipping. The DLPan port makes 450 epochs.

Differences from the release:

- M is interpolated by the 23-tap filter of the toolboxes, where its pixels really lie on the fine grid.
- T starts like the other convolutions, as in TensorFlow; the port leaves it to PyTorch's default.
- The port validates with keys of its test set that its validation set does not have; here both see the same.
- Ratios other than 4: T has a kernel of twice the ratio and the ratio for stride.
- More than one guide band (the paper has one): f sees the high frequencies of all of them.
"""

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.layers.conv import Conv, ConvTranspose
from jfusion.layers.init import tf_variance_scaling
from jfusion.layers.layouts import torch_layer, torch_transposed_kernel
from jfusion.layers.residual import DLPAN_UNUSED, ResidualBlock, dlpan_layers
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.resample import upsample
from jfusion.operators.spatial import Blur
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_squared_error

WINDOW = 5
"""Side of the window whose mean is taken from an image."""


def high_pass(image: Array) -> Array:
    """H: the image ``(batch, height, width, band)`` minus its mean over 5x5 pixels."""
    profile = jnp.full(WINDOW, 1 / WINDOW, image.dtype)
    return image - Blur((profile, profile), "reflect")(image)


class PanNet(nnx.Module):
    """The network of Yang et al., 2017."""

    def __init__(self, bands: Bands, *, width: int = 32, blocks: int = 4, rngs: nnx.Rngs) -> None:
        self.enlarge = ConvTranspose(
            bands.lr,
            bands.lr,
            2 * bands.ratio,
            strides=bands.ratio,
            kernel_init=tf_variance_scaling,
            rngs=rngs,
        )
        self.head = Conv(bands.lr + bands.guide, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(width, rngs=rngs) for _ in range(blocks))
        self.tail = Conv(width, bands.lr, 3, kernel_init=tf_variance_scaling, rngs=rngs)

    def __call__(self, observation: Observation, model: ObservationModel) -> Array:
        """``(batch, height, width, band)``, in the units of the observation, from "lr" and "guide".

        Raises:
            InputError: an image of fewer than 3 rows or columns.
        """
        lr, guide = observation["lr"], observation["guide"]
        features = jnp.concatenate([self.enlarge(high_pass(lr)), high_pass(guide)], -1)
        features = nnx.relu(self.head(features))
        for block in self.blocks:
            features = block(features)
        return upsample(lr, model.grid, "interp23") + self.tail(features)


def _toolbox(network: PanNet) -> Table:
    return torch_layer("enlarge", "deconv", torch_transposed_kernel) | dlpan_layers(len(network.blocks))


PANNET = System(
    name="pannet",
    title="PanNet",
    family="cnn",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="J. Yang, X. Fu, Y. Hu, Y. Huang, X. Ding, J. Paisley",
        year=2017,
        title="PanNet: A Deep Network Architecture for Pan-Sharpening",
        venue="IEEE International Conference on Computer Vision",
        doi="10.1109/ICCV.2017.193",
        code="https://github.com/liangjiandeng/DLPan-Toolbox",
    ),
    summary="A residual network turns the high frequencies of both images into the missing details, which are added to "
    "the interpolated image.",
    method=Trained(
        network=PanNet,
        loss=mean_squared_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(1e-3),
            steps=255_000,
            patch=64,
            batch=32,
            note="Mean squared error, Adam at 1e-3; images divided by their 99.9 % quantile (release: 2047).",
        ),
        tiny={"width": 8, "blocks": 1},
        originals=(
            Original(
                file="pannet.pth of the DLPan toolbox for WorldView-2 and -3; QuickBird and WorldView-4 have the bands "
                "4 1 4",
                table=_toolbox,
                bands=Bands(8, 1, 4),
                scale=2047,
                unused=DLPAN_UNUSED,
            ),
        ),
    ),
    differences="23-tap interpolation; the transposed convolution starts like the others and has a kernel of twice the "
    "ratio; several guide bands enter side by side.",
    parameters=(83_024, Bands(8, 1, 4)),
    local=13,
)
