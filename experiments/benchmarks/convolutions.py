"""Time of `jfusion.layers.conv` against plain `lax`: `python -m experiments.benchmarks.convolutions`.

Every case runs both in turn, in one process and after a warm-up. Printed are the medians, and the median of the
per-round ratios ours / lax with its extremes: below 1, ours is faster. On GPU and TPU both are the same program.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax import lax
from rich.console import Console
from rich.table import Table

from jfusion.layers.conv import conv, conv_transpose

Function = Callable[..., Any]


@dataclass(frozen=True)
class Settings:
    """Sizes of the benchmark."""

    rounds: int = 9
    """Alternations of the two rivals."""
    batch: int = 4
    size: int = 64
    """Height and width of the images."""
    channels: int = 32
    stages: int = 6
    """Convolutions in a row, in the cases with stages."""
    seeds: int = 4
    """Networks side by side, in the cases under vmap."""


def lax_conv(x: jax.Array, w: jax.Array, *, strides: int = 1, padding: str = "SAME", groups: int = 1) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def lax_conv_transpose(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def gradient(f: Function) -> Function:
    return jax.grad(lambda x, w: jnp.sum(f(x, w) ** 2), (0, 1))


def unrolled(f: Function) -> Function:
    def stages(x: jax.Array, ws: jax.Array) -> jax.Array:
        for w in ws:
            x = jnp.tanh(f(x, w))
        return x

    return stages


def scanned(f: Function) -> Function:
    return lambda x, ws: lax.scan(lambda x, w: (jnp.tanh(f(x, w)), None), x, ws)[0]


def cases(s: Settings) -> Iterator[tuple[str, Function, Function, tuple[jax.Array, jax.Array]]]:
    """Name, ours, lax, operands."""

    def image(*lead: int, size: int = s.size, channels: int = s.channels) -> jax.Array:
        return jax.random.normal(jax.random.key(0), (*lead, s.batch, size, size, channels))

    def kernel(*shape: int) -> jax.Array:
        return jax.random.normal(jax.random.key(1), shape) / (shape[-2] * shape[-3] * shape[-4]) ** 0.5

    c = s.channels
    stages = (image(), kernel(s.stages, 3, 3, c, c))
    yield f"{s.stages} stages, unrolled, gradient", gradient(unrolled(conv)), gradient(unrolled(lax_conv)), stages
    yield f"{s.stages} stages, scan, gradient", gradient(scanned(conv)), gradient(scanned(lax_conv)), stages
    yield (
        f"{s.stages} stages, our scan against unrolled lax",
        gradient(scanned(conv)),
        gradient(unrolled(lax_conv)),
        stages,
    )
    half = image(size=s.size // 2)
    single: list[tuple[str, Function, Function, tuple[jax.Array, jax.Array]]] = [
        ("3x3", conv, lax_conv, (image(), kernel(3, 3, c, c))),
        ("3x3, twice the channels out", conv, lax_conv, (image(), kernel(3, 3, c, 2 * c))),
        (
            "3x3 without padding",
            lambda x, w: conv(x, w, padding="valid"),
            lambda x, w: lax_conv(x, w, padding="VALID"),
            (image(), kernel(3, 3, c, c)),
        ),
        ("3x3, two channels more", conv, lax_conv, (image(channels=c + 2), kernel(3, 3, c + 2, c + 2))),
        ("3x3, a quarter of the channels", conv, lax_conv, (image(channels=c // 4), kernel(3, 3, c // 4, c // 4))),
        ("1x1", conv, lax_conv, (image(), kernel(1, 1, c, c))),
        (
            "depthwise 3x3",
            lambda x, w: conv(x, w, groups=c),
            lambda x, w: lax_conv(x, w, groups=c),
            (image(), kernel(3, 3, 1, c)),
        ),
        (
            "2x2 stride 2",
            lambda x, w: conv(x, w, strides=2),
            lambda x, w: lax_conv(x, w, strides=2),
            (image(), kernel(2, 2, c, c)),
        ),
        (
            "3x3 stride 2",
            lambda x, w: conv(x, w, strides=2),
            lambda x, w: lax_conv(x, w, strides=2),
            (image(), kernel(3, 3, c, c)),
        ),
        ("transposed 4x4 stride 2", conv_transpose, lax_conv_transpose, (half, kernel(4, 4, c, c))),
        ("transposed 2x2 stride 2", conv_transpose, lax_conv_transpose, (half, kernel(2, 2, c, c))),
    ]
    for name, ours, theirs, operands in single:
        yield f"{name}, forward", ours, theirs, operands
        yield f"{name}, gradient", gradient(ours), gradient(theirs), operands
    yield (
        f"3x3, {s.seeds} kernels under vmap, gradient",
        jax.vmap(gradient(conv)),
        jax.vmap(gradient(lax_conv)),
        (image(s.seeds, size=s.size // 2), kernel(s.seeds, 3, 3, c, c)),
    )


def seconds(f: Function, operands: tuple[jax.Array, jax.Array]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(f(*operands))
    return time.perf_counter() - start


def main(settings: Settings) -> None:
    device = jax.devices()[0]
    title = f"jax {jax.__version__}, {device.device_kind}, {platform.machine()}"
    table = Table("case", "ours, ms", "lax, ms", "ours / lax", "extremes", title=title)
    for name, ours, theirs, operands in cases(settings):
        rivals = [jax.jit(ours), jax.jit(theirs)]
        for f in rivals:
            seconds(f, operands)
        rounds = [[seconds(f, operands) for f in rivals] for _ in range(settings.rounds)]
        a, b = (1000 * statistics.median(times) for times in zip(*rounds, strict=True))
        ratios = [mine / other for mine, other in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(name, f"{a:.2f}", f"{b:.2f}", f"{statistics.median(ratios):.2f}", spread)
    Console(width=120).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
