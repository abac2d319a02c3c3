"""The kit of unrolled networks: data steps over the observation model, a learned prox, and the run over the stages.

An unrolled network is a solver of ``min_x sum_k |A_k x - y_k|^2 + g(x)`` that stops after a few stages and learns what
it does not know: the prox of ``g``, the weights, the step sizes. What the sensors did, ``A_k``, it is told by the
observation model. A stage is a small module; the network is a list of them:

    class Stage(nnx.Module):
        def __init__(self, bands, rngs):
            self.prox = Prox(bands.lr, bands.guide, rngs=rngs)
            self.step = Positive(0.5)

        def __call__(self, x, observation, model):
            x = gradient_step(x, observation, model, {"lr": self.step(), "guide": self.step()})
            return self.prox(x, observation["guide"])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jfusion.errors import InputError
from jfusion.layers.conv import Conv
from jfusion.operators import LinearOperator, Observation, ObservationModel, relative_residual
from jfusion.operators.linear import pytree, single
from jfusion.solvers.cg import conjugate_gradient
from jfusion.solvers.sylvester import fuse_closed_form
from unrolled.physics import Sensor

Weights = Mapping[str, Array | float]
"""A number, or one a band, for each key of the observation that takes part in a data step."""

Unroll = Literal["loop", "scan", "remat"]
"""How the stages are laid out: one after the other in the program; as one stage in `jax.lax.scan`, which compiles once
and keeps products and convolutions for the backward pass; the same with all that is inside a stage recomputed there, so
that only what stages hand on is kept. What is faster differs from network to network (``experiments.benchmarks --parts
layouts``), and so does their default."""

Carry = TypeVar("Carry")


# Data steps: pure functions of the estimate, the observation and its model -------------------------------------------


def gradient_step(
    x: Array, observation: Observation, model: ObservationModel | Mapping[str, Sensor], step: Weights
) -> Array:
    """``x - sum_k A_k' step_k (A_k x - y_k)``, in float32 at least.

    Args:
        x: estimate ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: its operators with their true adjoints, of which those that ``step`` names must be known; or what stands
            for them, such as ``unrolled.physics.Sensors`` makes.
        step: step size by key, a number or one a band of that image.

    Raises:
        InputError: an operator is not known.
    """
    x, observation = single((x, dict(observation)))
    return x - sum(model[k].T(s * (model[k](x) - observation[k])) for k, s in step.items())


def cg_step(
    prior: Array,
    observation: Observation,
    model: ObservationModel,
    weight: Weights,
    penalty: Array | float = 1.0,
    *,
    steps: int = 10,
    tolerance: float = 1e-4,
) -> Array:
    """Half-quadratic data step ``argmin_x sum_k weight_k |A_k x - y_k|^2 + penalty |x - prior|^2`` for any operators.

    In float32 at least. Conjugate gradients from ``prior``; few steps also give a sound gradient in ``prior``, while
    that in the weights is the exact solution's, see `jfusion.solvers.cg.conjugate_gradient`.

    Args:
        prior: what the prox gave, ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: its operators; those that ``weight`` names must be known.
        weight: trust in each image, a number or one a band, in theory one over the variance of its noise.
        penalty: trust in ``prior``.
        steps: most steps of conjugate gradients.
        tolerance: relative residual at which they stop.

    Raises:
        InputError: an operator is not known.
    """

    prior, observation = single((prior, dict(observation)))

    def normal(x: Array) -> Array:
        return sum((model[k].T(w * model[k](x)) for k, w in weight.items()), penalty * x)

    rhs = sum((model[k].T(w * observation[k]) for k, w in weight.items()), penalty * prior)
    return conjugate_gradient(normal, rhs, prior, shift=penalty, steps=steps, tolerance=tolerance)[0]


def closed_form_step(
    prior: Array,
    observation: Observation,
    model: ObservationModel,
    penalty: Array | float = 1.0,
    weight: Weights | None = None,
    basis: Basis | None = None,
) -> Array:
    """The minimiser that `cg_step` approaches, exactly and without iterations, for a blur that is periodic.

    One solve by pixel and one by frequency, see `jfusion.solvers.sylvester.fuse_closed_form`, which also says what it
    does at other boundaries.

    Args:
        prior: what the prox gave, ``(batch, height, width, band)``; with ``basis``, ``(..., component)``.
        observation: what the sensors gave.
        model: ``lr`` with one PSF for all bands, ``guide`` a spectral response.
        penalty: trust in ``prior``.
        weight: trust in ``lr``, a positive number, and in ``guide``, a number or one for each of its bands, which takes
            no part where it is not named; 1 in each image by default.
        basis: of full column rank; what is solved for is then coefficients, as by `cg_step` with a model
            `on_coefficients` where its vectors are orthonormal. ``model`` stays that of the spectra.

    Raises:
        InputError: an operator that the closed form does not cover, or shapes that do not fit.
    """
    weight = dict.fromkeys(observation, 1.0) if weight is None else weight
    if "lr" not in weight:
        raise InputError(
            "the closed form needs a weight for lr, but has one for guide alone; the guide alone is a matter of "
            "spectral_step."
        )
    weights, observation = (weight["lr"], weight.get("guide", 1.0)), {k: observation[k] for k in weight}
    if basis is None:
        return fuse_closed_form(observation, model, prior, penalty, weights=weights)

    def one(observation: Observation, prior: Array, vectors: Array) -> Array:
        return fuse_closed_form(observation, model, prior, penalty, basis=vectors, weights=weights)

    return jax.vmap(one)(observation, prior, jnp.broadcast_to(basis.vectors, (len(prior), *basis.vectors.shape[1:])))


def spectral_step(prior: Array, observed: Array, mixing: Array, weight: Array | float) -> Array:
    """The exact step towards the guide, pixel by pixel: ``argmin_x weight |M x - z|^2 + |x - prior|^2``.

    Args:
        prior: ``(batch, height, width, band)``.
        observed: z, ``(batch, height, width, guide band)``.
        mixing: M, such as ``model["guide"].srf``, ``(guide band, band)``, or one for each image with a leading axis.
        weight: trust in the guide, a positive scalar, or one for each of its bands.
    """
    transposed = jnp.swapaxes(mixing, -2, -1)
    noise = jnp.diag(jnp.broadcast_to(1 / jnp.asarray(weight), mixing.shape[-2:-1]))
    normal = jnp.matmul(mixing, transposed, precision="highest") + noise
    error = observed - jnp.einsum("...gl,...hwl->...hwg", mixing, prior, precision="highest")
    gain = jnp.linalg.solve(normal, mixing)
    return prior + jnp.einsum("...gl,...hwg->...hwl", gain, error, precision="highest")


class Split(NamedTuple):
    """State of the alternating direction method of multipliers: estimate, its copy for the prox, scaled multiplier."""

    x: Array
    z: Array
    multiplier: Array


def admm_step(state: Split, data: Callable[[Array], Array], prox: Callable[[Array], Array]) -> Split:
    """``x = data(z - u)``, ``z = prox(x + u)``, ``u = u + x - z``.

    Boyd et al., "Distributed optimization and statistical learning via ADMM", FnT Machine Learning 3(1), 2011, 3.1.1.

    Args:
        state: of the stage before; ``Split(x, x, jnp.zeros_like(x))`` to begin with.
        data: a half-quadratic data step as a function of its prior.
        prox: the proximal step.
    """
    x = data(state.z - state.multiplier)
    z = prox(x + state.multiplier)
    return Split(x, z, state.multiplier + x - z)


# What a stage learns ----------------------------------------------------------------------------------------------


class Positive(nnx.Module):
    """Learned positive numbers: the softplus of their parameters.

    Args:
        value: at first, a number or an array of them.

    Raises:
        InputError: a value is not positive.
    """

    def __init__(self, value: float | Array | np.ndarray) -> None:
        start = np.asarray(value, np.float64)
        if not (start > 0).all():
            raise InputError(f"a learned positive number must begin above zero, but {value} came.")
        self.raw = nnx.Param(jnp.asarray(start + np.log(-np.expm1(-start)), jnp.float32))

    def __call__(self) -> Array:
        return jax.nn.softplus(self.raw[...])


class Convolutions(nnx.Module):
    """Convolutions 3 x 3 with rectifiers between them; what comes out is small at first.

    Args:
        inputs, outputs: channels.
        width: channels inside.
        depth: convolutions between the first and the last.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 32, depth: int = 1, rngs: nnx.Rngs) -> None:
        sizes = [inputs, *[width] * (depth + 1)]
        self.inner = nnx.List([Conv(i, o, 3, padding="reflect", rngs=rngs) for i, o in pairwise(sizes)])
        small = jax.nn.initializers.normal(0.1 / (3 * math.sqrt(width)))
        self.outer = Conv(width, outputs, 3, padding="reflect", kernel_init=small, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(..., height, width, inputs)`` to ``(..., height, width, outputs)``."""
        for conv in self.inner:
            x = jax.nn.relu(conv(x))
        return self.outer(x)


class Prox(nnx.Module):
    """A learned proximal step: ``x`` plus a small residual network of ``x`` and of features that guide it.

    Args:
        channels: of ``x``.
        features: channels of the features, 0 for none.
        width, depth: see `Convolutions`.
    """

    def __init__(self, channels: int, features: int = 0, *, width: int = 32, depth: int = 1, rngs: nnx.Rngs) -> None:
        self.residual = Convolutions(channels + features, channels, width=width, depth=depth, rngs=rngs)

    def __call__(self, x: Array, features: Array | None = None) -> Array:
        """``(..., height, width, channels)`` to the same."""
        return x + self.residual(x if features is None else jnp.concatenate([x, features], -1))


# The run over the stages --------------------------------------------------------------------------------------------


class Stages(NamedTuple):
    """What an unrolled network did, stage by stage.

    Attributes:
        product: the fused image, ``(batch, height, width, band)``.
        estimates: in order, ``(estimate, batch, height, width, band)``: of every stage, of what comes before and after
            the stages where the network's page says so, and the ``exact`` product where that was asked for.
        residuals: ``|A_k x - y_k| / |y_k|`` of every estimate by key of the known sensors, ``(estimate, batch)``.
        steps: what the network weighs with, by name, ``(step, ...)`` in the order of the steps that have such a number.
            They may be fewer than the estimates, so that ``steps[name][k]`` need not belong to ``estimates[k]``.
    """

    product: Array
    estimates: Array
    residuals: dict[str, Array]
    steps: dict[str, Array]


def consistent(
    product: Array, observation: Observation, model: ObservationModel, *, steps: int = 200, tolerance: float = 1e-6
) -> Array:
    """The nearest image to ``product`` in which every sensor sees what it saw: least ``|x - p|``, all ``A_k x = y_k``.

    In float32 at least. Conjugate gradients from ``product``, whose steps stay in the span of the adjoints and so
    approach the smallest correction. Where noise keeps the images from agreeing, the result is a least-squares one of
    relative errors, and fits the noise. Differentiable in reverse mode in ``product`` and ``observation``; what the
    observation weighs, and the model, count as fixed. A guide whose response was estimated from the pair is left out:
    what the bands of `lr` do not explain of it would be forced upon them.

    Args:
        product: ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: its operators; those that are not known, and an estimated one of the guide, are left out.
        steps, tolerance: of `jfusion.solvers.cg.conjugate_gradient`.

    Raises:
        InputError: no operator is known.
    """
    observation, model = model.linear(observation)
    known = {k: v for k, v in model.operators.items() if v is not None and (k != "guide" or k not in model.estimated)}
    if not known:
        raise InputError(
            "an exact product agrees with what known sensors saw, but no operator of the observation model is known; "
            "give the sensors (PSF, SRF) or estimate them from the pair with jfusion.operators.estimate."
        )

    return _nearest(*single((product, {k: observation[k] for k in known})), known, steps, tolerance)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _nearest(
    product: Array, observation: Observation, operators: dict[str, LinearOperator], steps: int, tolerance: float
) -> Array:
    return _least_squares(product, observation, operators, _trust(observation), steps, tolerance)


def _trust(observation: Observation) -> dict[str, Array]:
    """One over the mean square of each image."""
    energy = {k: jnp.mean(seen**2, (-3, -2, -1), keepdims=True) for k, seen in observation.items()}
    return {k: 1 / jnp.where(e > 0, e, 1) for k, e in energy.items()}


def _least_squares(
    start: Array,
    observation: Observation,
    operators: dict[str, LinearOperator],
    trust: dict[str, Array],
    steps: int,
    tolerance: float,
) -> Array:
    normal, rhs = partial(_normal, operators=operators, trust=trust), _back(observation, operators, trust)
    return conjugate_gradient(normal, rhs, start, steps=steps, tolerance=tolerance)[0]


def _normal(x: Array, operators: dict[str, LinearOperator], trust: dict[str, Array]) -> Array:
    return _back({k: operator(x) for k, operator in operators.items()}, operators, trust)


def _back(seen: Observation, operators: dict[str, LinearOperator], trust: dict[str, Array]) -> Array:
    return reduce(jnp.add, (operator.T(trust[k] * seen[k]) for k, operator in operators.items()))


_Saved = tuple[dict[str, LinearOperator], dict[str, Array]]


def _nearest_forward(
    product: Array, observation: Observation, operators: dict[str, LinearOperator], steps: int, tolerance: float
) -> tuple[Array, _Saved]:
    trust = _trust(observation)
    return _least_squares(product, observation, operators, trust, steps, tolerance), (operators, trust)


def _nearest_backward(steps: int, tolerance: float, saved: _Saved, g: Array) -> tuple[Array, Observation, None]:
    """The derivative in the product keeps what no sensor sees of ``g``; the rest of it goes to the observations.

    A solve with ``g`` itself would diverge, since the system is singular and ``g`` not in its range.
    """
    operators, trust = saved
    nothing = {k: jnp.zeros_like(operator(g)) for k, operator in operators.items()}
    unseen = _least_squares(g, nothing, operators, trust, steps, tolerance)
    normal = partial(_normal, operators=operators, trust=trust)
    spread = conjugate_gradient(normal, g - unseen, steps=steps, tolerance=tolerance)[0]
    return unseen, {k: trust[k] * operator(spread) for k, operator in operators.items()}, None


_nearest.defvjp(_nearest_forward, _nearest_backward)


class Options(TypedDict, total=False):
    """What a call of an unrolled network may ask for.

    Attributes:
        stages: a `Stages` instead of the product alone.
        exact: a product that is `consistent` with the observation.
    """

    stages: bool
    exact: bool


def finish(
    estimates: Sequence[Array] | Array,
    observation: Observation,
    model: ObservationModel,
    steps: Mapping[str, Array] | None = None,
    **options: Unpack[Options],
) -> Array | Stages:
    """What an unrolled network returns: its last estimate, or what the options ask for.

    Args:
        estimates: of every stage, each ``(batch, height, width, band)``.
        observation: what the sensors gave.
        model: the residuals are those of its known operators.
        steps: for `Stages`; not necessarily as many as there are estimates.
        options: see `Options`.

    Raises:
        InputError: no such option, or ``exact`` without any known operator.
    """
    if unknown := sorted(options.keys() - Options.__optional_keys__):
        raise InputError(
            f"the options of an unrolled network are {', '.join(sorted(Options.__optional_keys__))}, but "
            f"{', '.join(unknown)} came."
        )
    made = [*estimates]
    if options.get("exact"):
        made.append(consistent(made[-1], observation, model))
    if not options.get("stages"):
        return made[-1]
    residuals = {k: relative_residual(seen, observation[k]) for k, seen in model(jnp.stack(made)).items()}
    return Stages(made[-1], jnp.stack(made), residuals, dict(steps or {}))


def run_stages(
    stages: Sequence[nnx.Module],
    body: Callable[[Any, Carry], tuple[Carry, Any]],
    carry: Carry,
    unroll: Unroll = "loop",
) -> tuple[Carry, Any]:
    """Runs ``carry, out = body(stage, carry)`` through all stages; the outs come back stacked.

    The numbers are the same however it is laid out. "loop" calls the stages as they are, which may differ in all but
    what they are given and make; "scan" and "remat" compile one in the place of all.

    Args:
        stages: modules; ``[stage] * 5`` shares the weights of one.
        body: what a stage does.
        carry: before the first stage.
        unroll: see `Unroll`.

    Raises:
        InputError: no such layout or no stages; in "scan" and "remat", stages that differ in more than the values of
            their parameters, or one that changes its own state (moments of batches, random numbers), which would be
            lost.
    """
    if unroll not in get_args(Unroll):
        raise InputError(f"unroll must be one of {', '.join(get_args(Unroll))}, but is {unroll!r}.")
    if not len(stages):
        raise InputError("at least one stage is needed to run, but the list of stages is empty; give one or more.")
    if unroll != "loop":
        return _scan_stages(stages, body, carry, recompute=unroll == "remat")
    outs = []
    for stage in stages:
        carry, out = body(stage, carry)
        outs.append(out)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)


def _scan_stages(
    stages: Sequence[nnx.Module], body: Callable[[Any, Carry], tuple[Carry, Any]], carry: Carry, recompute: bool
) -> tuple[Carry, Any]:
    graph, states = nnx.graphdef(stages[0]), [nnx.state(stage) for stage in stages]
    shapes = [jax.tree.map(jnp.shape, state) for state in states]
    for k, stage in enumerate(stages):
        if nnx.graphdef(stage) != graph or shapes[k] != shapes[0]:
            raise InputError(
                f"one compiled stage must serve for all, but stage {k} differs from stage 0 in structure, shapes or "
                "settings that are no parameters; lay the stages out with unroll='loop'."
            )

    def step(carry: Carry, state: Any) -> tuple[Carry, Any]:
        stage = nnx.merge(graph, state, copy=True)
        made = body(stage, carry)
        before, after = (dict(jax.tree_util.tree_leaves_with_path(s)) for s in (state, nnx.state(stage)))
        if changed := [jax.tree_util.keystr(path) for path in after if after[path] is not before.get(path)]:
            raise InputError(
                f"a stage must leave its state alone in one compiled stage, where it is lost, but changes "
                f"{', '.join(changed)}; lay the stages out with unroll='loop', or use running moments and no dropout."
            )
        return made

    carry = _promoted(step, carry, states[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def same(carry: Carry, k: Array) -> tuple[Carry, Any]:
        after, out = step(carry, jax.tree.map(lambda leaves: _picked(leaves, k), stacked))
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, carry), out

    def kept(primitive: Any, *operands: Any, **_: Any) -> bool:
        return primitive.name in COSTLY and operands[0].shape != (1, len(stages))  # the latter is `_picked`

    same = jax.checkpoint(same, prevent_cse=False, policy=None if recompute else kept)
    return jax.lax.scan(same, carry, jnp.arange(len(stages)))


COSTLY = ("dot_general", "conv_general_dilated", "custom_vmap_call")
"""Products and convolutions (`jfusion.layers.conv`), which the backward pass of a scan keeps. It makes the rest anew,
since storing and reading that, number by number on CPU, takes longer."""


def _picked(leaves: Array, k: Array) -> Array:
    """``leaves[k]``.

    On CPU by a product with zeros and a one, since XLA would put a slice into every loop that reads it, and such loops
    go number by number.
    """
    if jax.default_backend() != "cpu" or not jnp.issubdtype(leaves.dtype, jnp.floating):
        return leaves[k]
    one = jax.nn.one_hot(k, len(leaves), dtype=leaves.dtype)[None]
    return jnp.matmul(one, leaves.reshape(len(leaves), -1), precision="highest").reshape(leaves.shape[1:])


def _promoted(step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, state: Any) -> Carry:
    """The carry in dtypes that hold what stages hand on, where they compute in more than they begin with."""
    after = jax.eval_shape(step, carry, state)[0]
    held = jax.tree.map(lambda old, new: old.astype(jnp.promote_types(old.dtype, new.dtype)), carry, after)
    same = jax.tree.map(jnp.result_type, held) == jax.tree.map(jnp.result_type, carry)
    return held if same else _promoted(step, held, state)


# Coefficients instead of bands ----------------------------------------------------------------------------------------


@pytree
class Basis(LinearOperator):
    """Coefficients to spectra, each image of a batch with its own basis: ``x = E c``.

    Attributes:
        vectors: ``(batch, band, component)``, for coefficients ``(..., batch, height, width, component)``.
    """

    vectors: Array

    def __call__(self, x: Array) -> Array:
        return jnp.einsum("...lr,...hwr->...hwl", self.vectors, x, precision="highest")

    def adjoint(self, y: Array) -> Array:
        return jnp.einsum("...lr,...hwl->...hwr", self.vectors, y, precision="highest")

    def input_shape(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*output_shape[:-1], self.vectors.shape[-1])


def on_coefficients(model: ObservationModel, basis: Basis) -> ObservationModel:
    """The same sensors looking at coefficients: data steps by gradients and by `cg_step` then work in the subspace.

    `closed_form_step` is given the basis instead.
    """
    return model.replace(operators={k: None if a is None else a @ basis for k, a in model.operators.items()})
