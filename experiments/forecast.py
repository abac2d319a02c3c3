"""Forecast of a train step on accelerators that are not there: a roofline over XLA's cost analysis.

A device computes for as long as the slower of two takes, the multipliers or the memory, and then averages the gradients
with the others around a ring:

    seconds = max(flops / (peak x utilisation), traffic / bandwidth) + 2 (n - 1) / n x gradient / link

The roofline is that of Williams, Waterman and Patterson, CACM 52(4), 2009, the ring that of Patarasuk and Yuan, JPDC
69(2), 2009. What a step computes and moves is counted in the program that XLA compiles of it for this machine.

Held against the TPU's own compiler, ahead of time for one v5e with 8 patches of 64 x 64 (libtpu 0.0.42, its estimated
cycles at 1.5 GHz), in the papers' sizes on Landsat-8 with utilisation 0.25:

    system      flops   traffic   memory   seconds, ms: forecast, compiler
    FusionNet   1.00    2.20      1.38     0.77   1.57
    PanNet      1.00    2.29      1.17     0.79   1.77
    PSGAN       1.00    1.33      0.63     1.98   1.69
    Fusformer   1.05    0.26      0.75     80.5   27.3

as ratios of the compiler's counts to those of the program for a CPU. The compiler pads 32 channels to 128 and fuses
attention. Nothing here has been held against a TPU itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax

from jfusion.catalogue import DType
from jfusion.operators import ObservationModel
from jfusion.training.step import Batch, Devices, Player, begin, make_step

Scaling = Literal["strong", "weak"]


@dataclasses.dataclass(frozen=True)
class Chip:
    """What its maker says of an accelerator.

    Attributes:
        name: of the chip.
        peak: flop/s of dense matrix products by dtype of computation. For float32 it is that of jax's default
            precision: on TPU the factors are rounded to bfloat16, on GPU to TF32 (docs.jax.dev, "Matmul precision").
        memory: bytes.
        bandwidth: of the memory, byte/s.
        link: byte/s that it sends to its neighbours over all its links together, half of what is published as
            bidirectional.
        largest: chips that such links join.
    """

    name: str
    peak: Mapping[DType, float]
    memory: float
    bandwidth: float
    link: float
    largest: int


CHIPS = (
    Chip("TPU v5e", {"float32": 197e12, "bfloat16": 197e12}, 16e9, 819e9, 200e9, 256),
    Chip("TPU v5p", {"float32": 459e12, "bfloat16": 459e12}, 95e9, 2765e9, 600e9, 6144),
    Chip("A100", {"float32": 156e12, "bfloat16": 312e12}, 80e9, 2039e9, 300e9, 8),
    Chip("H100", {"float32": 494.7e12, "bfloat16": 989.4e12}, 80e9, 3350e9, 450e9, 8),
)
"""Google Cloud: docs.cloud.google.com/tpu/docs/v5e (links of 1600 Gbps one way, now given as 400 GB/s both ways) and
.../v5p (4800 Gbps, 1200 GB/s; the largest job has 6144 chips). GPUs in their SXM form with 80 GB: NVIDIA's data sheets,
as quoted at glennklockwood.com/garden/processors/A100 and .../h100; NVLink, of 600 and 900 GB/s both ways, joins the
eight of a node."""

COUNTS = (1, 4, 8, 16, 64, 256, 1024, 4096)
"""Numbers of chips that are forecast, as far as a chip's links go."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device does in a step.

    Attributes:
        patches: its share of the batch.
        flops: floating-point operations.
        traffic: bytes read from memory and written to it.
        memory: bytes that it holds at once.
        gradient: bytes that are averaged over the devices.
        loops: of the program, whose bodies XLA counts once however often they run.
    """

    patches: int
    flops: float
    traffic: float
    memory: float
    gradient: float
    loops: int


def between(small: Work, large: Work, patches: int) -> Work:
    """The work for another share: everything grows linearly with it, from what the parameters alone cost."""
    if patches == large.patches:
        return large
    slope = (patches - small.patches) / (large.patches - small.patches)
    at = {name: a + slope * (getattr(large, name) - a) for name, a in dataclasses.asdict(small).items()}
    return Work(**{**at, "patches": patches, "loops": large.loops})


def compute_seconds(work: Work, chip: Chip, dtype: DType, utilisation: float) -> tuple[float, str]:
    """Seconds of a step without communication, and what bounds them: "multipliers" or "memory"."""
    multipliers, memory = work.flops / (chip.peak[dtype] * utilisation), work.traffic / chip.bandwidth
    return max((multipliers, "multipliers"), (memory, "memory"))


def reduce_seconds(gradient: float, devices: int, link: float) -> float:
    """Seconds in which a ring of devices averages ``gradient`` bytes, at ``link`` byte/s."""
    return 2 * (devices - 1) / devices * gradient / link


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A row of the forecast.

    Attributes:
        chip: its name.
        scaling: "strong", the batch stays, or "weak", each device's share stays.
        start: patches on one device, which both begin with.
        devices, batch: chips, and patches of all of them.
        compute, reduce: seconds of a step.
        bound: what bounds ``compute``.
        rate: patches a second.
        efficiency: rate of a device, relative to one alone.
        memory: bytes that a device holds.
        fits: whether the chip has them.
    """

    chip: str
    scaling: Scaling
    start: int
    devices: int
    batch: int
    compute: float
    reduce: float
    bound: str
    rate: float
    efficiency: float
    memory: float
    fits: bool


def forecasts(
    chips: Sequence[Chip], small: Work, large: Work, parts: int, dtype: DType, utilisation: float
) -> Iterator[Forecast]:
    """Strong and weak scaling of the batch ``large.patches`` on each chip.

    Args:
        chips: to forecast.
        small, large: the work for two shares, see `between`.
        parts: pieces that a share is computed in, which the share must be a multiple of.
        dtype: of computation.
        utilisation: of the peak.
    """
    start = large.patches
    for chip in chips:
        alone = start / compute_seconds(large, chip, dtype, utilisation)[0]
        counts = [n for n in COUNTS if n <= chip.largest]
        cases: list[tuple[Scaling, int, int]] = [("strong", n, start // n) for n in counts if start % (n * parts) == 0]
        for scaling, n, share in [*cases, *(("weak", n, start) for n in counts)]:
            work = between(small, large, share)
            compute, bound = compute_seconds(work, chip, dtype, utilisation)
            reduce = reduce_seconds(work.gradient, n, chip.link)
            rate = n * share / (compute + reduce)
            yield Forecast(
                chip.name, scaling, start, n, n * share, compute, reduce, bound, rate, rate / (n * alone), work.memory,
                work.memory <= chip.memory,
            )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# What XLA counts


def countable() -> Devices:
    """One device whose compiled programs can be counted: not a GPU, where calls of libraries hide what they compute."""
    backend = None if jax.default_backend() in ("cpu", "tpu") else "cpu"
    return Devices((jax.local_devices(backend=backend)[0],))


def analysed(
    players: Mapping[str, Player],
    modules: Mapping[str, Any],
    batch: Batch,
    model: ObservationModel,
    parts: int,
    dtype: DType,
    observing: bool = False,
) -> Work:
    """Counts the train step of one device with a whole batch, without running it.

    Flops and traffic are those of the compiled float32 program over the batch in one part, for XLA counts the body of a
    loop once. For bfloat16, which a CPU computes in float32, the traffic shrinks as it does in the program before it is
    compiled. Calls of LAPACK count as nothing. Memory is that of the float32 program in all its parts.
    """
    devices = countable()
    state, model = devices.replicate((begin(players, modules), model))
    share = devices.share(batch)

    def lowered(parts: int, dtype: str) -> Any:
        step: Any = make_step(players, devices, parts, dtype, observing)
        return step.lower(state, share, model)

    whole = lowered(1, "float32")
    program = whole.compile()
    sizes = (program if parts == 1 else lowered(parts, "float32").compile()).memory_analysis()
    cost, thinner = program.cost_analysis(), 1.0
    if dtype != "float32":
        thinner = lowered(1, dtype).cost_analysis()["bytes accessed"] / whole.cost_analysis()["bytes accessed"]
    return Work(
        patches=len(batch.target),
        flops=cost["flops"],
        traffic=cost["bytes accessed"] * thinner,
        memory=sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes,
        gradient=sum(
            player.turns * sum(x.nbytes for x in jax.tree.leaves(state.players[name].parameters))
            for name, player in players.items()
        ),
        loops=program.as_text().count(" while("),
    )  # fmt: skip
