"""From a row of the catalogue to a product: train or fit where the system asks for it, then apply it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jfusion import catalogue
from jfusion.catalogue import Bands, Classical, Fitted, Fusion, System, Trained
from jfusion.data.simulate import Simulation, reduce
from jfusion.errors import InputError, RunError
from jfusion.inference.fits import fit
from jfusion.inference.meter import measured
from jfusion.inference.pair import in_blocks, observed
from jfusion.inference.uncertainty import calibrated, check_interval
from jfusion.operators import Observation, ObservationModel, check_pair, relative_residual, upsample
from jfusion.operators.estimate import Estimate, estimate
from jfusion.operators.linear import floating
from jfusion.operators.registration import Registration, displaced, in_place, register, shown
from jfusion.progress import Progress, counted, silent
from jfusion.training.loop import Network, train

EXPLAINED = 0.95
"""Share of a guide band's variance below which it is said how little the bands of `lr` explain of it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one system on one observation.

    Attributes:
        product: ``(batch, height, width, band)``.
        model: the observation model that was used, with its estimated parts; of a pair that was registered, `lr` is
            `Displaced`.
        seconds: wall-clock, with training, fitting and compilation.
        peak_memory_mib: memory above the start's, see `jfusion.inference.meter`; None where the system does not say.
        parameters: of the network, None for a classical system.
        note: how the system came to be ready, and what is to be said of its product.
        network: the trained network, None for other kinds.
        registration: of the pair, None where it was not registered.
        half_width: of the product's interval, of its shape; None where it has none.
    """

    product: Array
    model: ObservationModel
    seconds: float
    peak_memory_mib: float | None
    parameters: int | None
    note: str
    network: Network | None = None
    registration: Registration | None = None
    half_width: Array | None = None


def count_parameters(module: Any) -> int:
    """Number of trainable parameters of a module."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def trained(
    system: System,
    observation: Observation,
    model: ObservationModel,
    *,
    data: Simulation | None = None,
    weights: Network | None = None,
    valid: Array | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> tuple[Network, str]:
    """The network of a system: ``weights``, or trained on ``data``, or on the pair itself one ratio lower.

    Of the pair, patches that see pixels of `lr` beyond ``valid``, ``(h, w)``, are left out, if there are others.

    Returns:
        The network, and a sentence that says where its parameters come from where that was not told.

    Raises:
        InputError: the weights belong to another system.
    """
    if weights is not None:
        if weights.system.name != system.name:
            raise InputError(
                f"the network is of {weights.system.name}, but {system.name} was asked for; ask for its own."
            )
        return weights, ""
    where = "on pairs with truth" if data is not None else "on the pair itself by Wald's protocol"
    if data is None:
        data = reduce(observation, model)
        if valid is not None and not valid.all():
            settings["valid"] = _reduced(np.asarray(valid), model.ratio)
    result = train(system, data, progress=progress, **settings)
    note = f"trained {where}: {counted(result.steps, result.planned)} in {result.seconds:.0f} s"
    return (result.network, note) if result.best is None else (result.best, f"{note}, the best by validation taken")


def _reduced(valid: np.ndarray, ratio: int) -> np.ndarray:
    """`observed` of a pair that `reduce` has taken one ratio lower."""
    blocks = in_blocks(valid, ratio)
    height, width = (ratio * n for n in blocks.shape)
    return observed({"lr": blocks, "guide": valid[:height, :width]}, ratio)


def completed(
    system: System,
    observation: Observation,
    model: ObservationModel,
    estimating: bool = False,
    exact: bool = False,
    valid: Array | None = None,
    sizes: Mapping[str, Any] | None = None,
) -> tuple[ObservationModel, str]:
    """The model with its unknown operators estimated where they are needed, and a note that says so.

    Args:
        estimating: all operators are estimated, whatever is known of them and whoever would learn them.
        exact: the product is to agree with the observation, for which the operators are needed.
        valid: ``(h, w)``, which pixels of `lr` they are estimated from; all by default.
        sizes: of the network.
    """
    if estimating:
        model = model.replace(operators=dict.fromkeys(model.operators))
    elif model.known or not (system.reads_model(sizes) or exact):
        return model, ""
    found = estimate(observation, model, valid=valid)
    return found.model, _told(found)


def _told(found: Estimate) -> str:
    """What is to be said of sensors that were estimated."""
    note, worst = "observation model estimated from the pair", int(jnp.argmin(jnp.nan_to_num(found.r_squared)))
    if jnp.any(found.model.offset.get("guide", jnp.zeros(1)) != 0):
        note += ", with an offset of the guide"
    if found.r_squared[worst] < EXPLAINED:
        note += f"; lr explains {max(float(found.r_squared[worst]), 0):.0%} of the guide's band {worst + 1}"
    return note


def check_exact(system: System) -> None:
    """Raises InputError where the system cannot be asked for a product that agrees with the observation."""
    if system.family != "unrolled":
        raise InputError(
            f"products that agree with both images are asked of unrolled networks, but {system.name} is "
            f"{system.family}; leave out --exact."
        )


def agreement(product: Array, observation: Observation, model: ObservationModel, exact: bool = False) -> str:
    """How well the product of a network agrees with what known sensors saw, where that is to be said.

    Args:
        product: ``(batch, height, width, band)``.
        observation, model: of the pair.
        exact: whether it was to agree; otherwise a remark is made where it tells `lr` worse than interpolation does.
    """
    residuals = _residuals(product, observation, model)
    if exact:
        return "agrees with " + " and ".join(
            f"{k} to {max(100 * float(v.max()), 0.01):.2g} %" for k, v in residuals.items()
        )
    if "lr" not in residuals:
        return ""
    ours, plain = residuals["lr"], _residuals(upsample(observation["lr"], model.grid), observation, model)["lr"]
    worst = int(jnp.argmax(ours - plain))
    if ours[worst] <= plain[worst]:
        return ""
    missed = [100 * float(values[worst]) for values in (ours, plain)]
    return f"misses lr by {missed[0]:.2g} %, where plain interpolation misses it by {missed[1]:.2g} %"


@jax.jit
def _residuals(product: Array, observation: Observation, model: ObservationModel) -> dict[str, Array]:
    return {k: relative_residual(seen, observation[k]) for k, seen in model(product).items()}


def run(
    system: System | str,
    observation: Observation,
    model: ObservationModel,
    *,
    data: Simulation | None = None,
    weights: Network | None = None,
    seed: int = 0,
    effort: float = 1.0,
    budget: float | None = None,
    progress: Progress = silent,
    sizes: dict[str, Any] | None = None,
    registering: bool = False,
    valid: Mapping[str, np.ndarray] | None = None,
    estimating: bool = False,
    folder: Path | None = None,
    resume: bool = True,
    uncertainty: float | None = None,
    exact: bool = False,
    **settings: Any,
) -> Run:
    """Makes a system ready and applies it.

    Of a pair that is registered first, a system whose row says `displaced` takes `lr` and its displacement as they are.
    Any other gets `lr` in its place (`jfusion.operators.registration`).

    Args:
        system: a row of the catalogue, or its name.
        observation: what the sensors gave.
        model: what is known of them.
        data: pairs with truth to train on; the pair itself, one ratio lower, by default.
        weights: a trained network in place of training; `jfusion.training.weights.load` reads one.
        seed: of parameters, patches and noise.
        effort: scales the numbers of steps of a fit.
        budget: seconds for training or fitting.
        progress: called while it trains or fits.
        sizes: of the network that is trained or fitted, the paper's by default.
        registering: whether `lr` may be displaced against the guide.
        valid: masks of `lr` and `guide`, ``(height, width)``, of the pixels that count; all by default. The others must
            be finite and no larger; `jfusion.inference.pair.filled` fills them. A pair is registered by those of
            `lr` for which the guide is valid too (`jfusion.inference.pair.observed`); its sensors are estimated from
            them, a network learns from them, a system is fitted to them, and its interval is calibrated on them.
        estimating: whether the sensors are estimated from the pair first (`jfusion.operators.estimate`), whatever the
            model knows of them, and not learned by the system.
        folder: from which a training or fit goes on after a kill.
        resume: whether one in the folder is gone on with; otherwise there must be none.
        uncertainty: level, between 0 and 1, of the interval that a fitted product gets; its product is then the mean of
            an ensemble, see `jfusion.inference.uncertainty`.
        exact: whether the product of an unrolled network is to agree with the observation: it is then the nearest such
            image, see `unrolled.stages.consistent`.
        settings: further arguments of `jfusion.training.loop.train`, where a network is trained.

    Raises:
        InputError: the pair or the weights do not fit the system, its images are not finite, the system does not learn
            by such settings, the folder holds other work, the system or the pair has no interval, or the system makes
            no exact products.
        RunError: the images could not be registered, training diverged, the product is not finite, or the folder cannot
            be written to or read from.
    """
    system = catalogue.get(system) if isinstance(system, str) else system
    check_pair(observation, model)
    _check_settings(system, weights, settings)
    observation = jax.tree.map(floating, dict(observation))
    _check_finite(observation)
    seen = None if valid is None else jnp.asarray(observed(valid, model.ratio))
    if uncertainty is not None:
        check_interval(system, observation["lr"].shape[1:3], model.ratio, uncertainty, seen)
    if exact:
        check_exact(system)
    with measured() as meter:
        given, found = observation, register(observation, model, seen) if registering else None
        if found is not None:
            found.check()
            observation = given | {"lr": in_place(given, displaced(model, found.displacement))}
            moved = shown(found.displacement, seen)
            seen = moved if seen is None else moved & seen
            if uncertainty is not None:
                check_interval(system, seen.shape, model.ratio, uncertainty, seen)
        used = sizes if weights is None else weights.sizes
        model, how = completed(system, observation, model, estimating, exact, seen, used)
        notes = [how]
        if found is not None and system.displaced:
            observation, model = given, displaced(model, found.displacement)
        parameters, network, half_width = None, None, None
        match system.method:
            case Classical():
                product = ready(system)(observation, model)
            case Trained():
                network, how = trained(
                    system, observation, model, data=data, weights=weights, valid=seen, progress=progress, seed=seed,
                    budget=budget, sizes=sizes, folder=folder, resume=resume, **settings,
                )  # fmt: skip
                notes.append(how)
                product = ready(system, network, exact)(observation, model)
                parameters = count_parameters(network.module)
            case Fitted() as fitted:
                counts = None if seen is None else {**(valid or {}), "lr": np.asarray(seen)}
                options: dict[str, Any] = {"effort": effort, "budget": budget, "progress": progress, "sizes": sizes,
                                           "folder": folder, "resume": resume, "valid": counts}  # fmt: skip
                if uncertainty is None:
                    done, course = fit(system, observation, model, jax.random.key(seed), **options)
                else:
                    ensemble = calibrated(system, observation, model, seed, **options)
                    done, course, half_width = ensemble.fit, ensemble.course, ensemble.half_width(uncertainty)
                    notes.append(f"mean of {len(ensemble.members)} fits")
                if course.done < course.planned:
                    notes.append(f"fitted for {counted(course.done, course.planned)}")
                product, model, bands = done.product, done.model, Bands.of(observation, model)
                parameters = count_parameters(_generator(fitted, bands, sizes or {}))
        if not isinstance(system.method, Classical):
            notes.append(agreement(product, observation, model, exact))
        if found is not None:
            model = model if system.displaced else displaced(model, found.displacement)
            notes.append(str(found))
        product.block_until_ready()
    lr, guide = observation["lr"], observation["guide"]
    if product.shape != (expected := (*guide.shape[:3], lr.shape[-1])):
        raise InputError(f"{system.name} made a product of shape {product.shape}, but one of this pair is {expected}.")
    if not bool(jnp.isfinite(product).all()):
        raise RunError(f"{system.name} made pixels that are not finite; check the pair for constant or empty bands.")
    note = "; ".join(filter(None, notes))
    return Run(product, model, meter.seconds, meter.peak_memory_mib, parameters, note, network, found, half_width)


def _check_settings(system: System, weights: Any, settings: Mapping[str, Any]) -> None:
    """Raises InputError where weights, or settings of a training, mean nothing."""
    if weights is not None and not isinstance(weights, Network):
        raise InputError(
            f"weights are a Network, as `training.network` or `jfusion.training.weights.load(path)`, but a "
            f"{type(weights).__name__} came."
        )
    trains = isinstance(system.method, Trained)
    given = [*(["weights"] if weights is not None and not trains else []), *settings]
    if given and (not trains or weights is not None):
        why = "is given weights" if trains else f"is {system.family} and not trained"
        hint = "; a fit takes effort=" if isinstance(system.method, Fitted) else ""
        raise InputError(f"{system.name} {why}: leave out {', '.join(given)}{hint}.")


def _check_finite(observation: Observation) -> None:
    for name, image in observation.items():
        if count := int(jnp.size(image) - jnp.isfinite(image).sum()):
            raise InputError(
                f"{name} has {count} values that are NaN or infinite; fill them (jfusion.inference.pair.filled) and "
                "say which pixels are valid."
            )


def _generator(fitted: Fitted, bands: Bands, sizes: dict[str, Any]) -> Any:
    """The shapes of what a fit made, of whose options some are none of the generator's."""
    generator = fitted.generator
    made_by = generator.__init__ if isinstance(generator, type) else generator  # type: ignore[misc]
    taken = inspect.signature(made_by).parameters
    if all(p.kind != p.VAR_KEYWORD for p in taken.values()):
        sizes = {name: value for name, value in sizes.items() if name in taken}
    return nnx.eval_shape(lambda: generator(bands, rngs=nnx.Rngs(0), **sizes))


def ready(system: System, network: Network | None = None, exact: bool = False) -> Fusion:
    """A compiled function ``product = system(observation, model)`` for many calls of one shape.

    Args:
        system: a row of the catalogue.
        network: of a system that is trained.
        exact: see `run`; only of unrolled networks.

    Raises:
        InputError: the system is fitted to each pair anew and so is never ready beforehand, or it is trained and its
            network is missing.
    """
    if isinstance(system.method, Classical):
        function = jax.jit(system.method.function)

        def fuse(observation: Observation, model: ObservationModel) -> Array:
            check_pair(observation, model)
            return function(*model.linear(jax.tree.map(floating, dict(observation))))

        return fuse
    if isinstance(system.method, Fitted):
        raise InputError(f"{system.name} is fitted to each pair anew; it cannot be made ready beforehand.")
    if network is None:
        raise InputError(f"{system.name} is ready once it is trained; give its network, or train one.")
    graph, state = nnx.split(network.module)
    built, options = network, {"exact": True} if exact else {}

    @jax.jit
    def compiled(state: Any, observation: Observation, model: ObservationModel) -> Array:
        return dataclasses.replace(built, module=nnx.merge(graph, state))(observation, model, **options)

    return lambda observation, model: compiled(state, observation, model)
