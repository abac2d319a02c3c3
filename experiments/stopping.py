"""How far rules that stop a fit without truth are from the step that the truth would choose.

    python -m experiments.stopping
    python -m experiments.stopping --cases neon_sjer/dip --noise 20 --looks 40

Every system is fitted to its end, with a network that is `experiments.cases.small`, and its states at equally
spaced looks are kept. Rules see the pair alone:

- *loss plateau* and *held-out pixels* are those of `priors.fit.Stopping`; the second needs a fit of its own, which does
  not see the pixels that judge it;
- *white residual* is after Almeida and Figueiredo, "Parameter Estimation for Blind and Non-Blind Deblurring Using
  Residual Whiteness Measures", 2013: what a good product leaves of the images is noise, which does not go together with
  its neighbours. It needs known sensors.

When all have chosen, and not before, the products at the looks are compared with the truth, which names the best one:
the oracle. The *last* one is what the fit returns if nobody stops it, with the average that some keep of their outputs.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.cases import Study, case_of, ground, small, studied
from experiments.places import Judged
from jfusion import catalogue
from jfusion.catalogue import Fitter
from jfusion.inference.evaluate import against_reference
from jfusion.inference.fits import check_fitted
from jfusion.operators import Observation, ObservationModel
from jfusion.process import answered, use_all_cores
from jfusion.progress import bar
from jfusion.report.content import SceneSection
from jfusion.report.plots import lines
from jfusion.report.results import Row
from jfusion.tasks import spatiospectral_task
from priors.fit import FitState, Stopping

STEPS = {"dip": 1500, "miae": 1500, "udaln": 6000, "deep_decoder": 1500}
"""Of a fit, in all stages together, fewer where known sensors spare one."""

CASES = ("neon_sjer/dip", "neon_sjer/miae", "aviris_california/udaln", "aviris_california/miae")
"""Scene and system."""

HELD_OUT = 0.1
"""Share of the observed pixels that one rule holds out."""

PATIENCE, TOLERANCE = 5, 1e-3
"""Of all rules, as `Stopping` has them."""

NEVER = 10**9
"""A patience that never ends a fit."""

ORACLE, LAST, PLATEAU, PIXELS, WHITE = "oracle", "last", "loss plateau", "held-out pixels", "white residual"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        cases: scene/system, systems of `STEPS`.
        looks: at each fit's last stage.
        noise: signal to noise ratio in dB of images that are simulated; that of `experiments.cases` by default.
        seed: of the fits.
        out: folder of the table and the page.
        smoke: one tiny case: does it run?
    """

    cases: tuple[str, ...] = CASES
    looks: int = 25
    noise: float | None = None
    seed: int = 0
    out: Path = Path("runs/stopping")
    smoke: bool = False


@dataclasses.dataclass(frozen=True)
class Look:
    """A state of a fit and the product there.

    Attributes:
        step: of the last stage.
        improved: whether the value that `Stopping` watches was then the best so far.
        product: ``(height, width, band)``.
    """

    step: int
    improved: bool
    product: np.ndarray


@dataclasses.dataclass(frozen=True)
class Subject:
    """A fit of one system to one pair, to be looked at.

    Attributes:
        fit: of the system.
        observation, model: the pair.
        options: of the fit, the same at every call.
        every: steps of the last stage between two looks.
        total: steps of the last stage.
        last: what the fit returns if nobody stops it, ``(height, width, band)``.
    """

    fit: Fitter
    observation: Observation
    model: ObservationModel
    options: dict[str, Any]
    every: int
    total: int
    last: np.ndarray

    @staticmethod
    def of(
        fit: Fitter, observation: Observation, model: ObservationModel, options: dict[str, Any], looks: int
    ) -> Subject:
        """A fit that is run to its end once, to learn how many steps its last stage has."""
        totals: list[int] = []
        done = fit(observation, model, save=lambda state: totals.append(state.total), **options)
        total, last = totals[-1], np.asarray(done.product[0])
        return Subject(fit, observation, model, options, max(1, total // looks), total, last)

    def looks(self, held_out: float = 0.0) -> list[Look]:
        """The products at all looks of the last stage of a fit that nothing stops."""
        states: list[FitState] = []
        stopping = Stopping(held_out, self.every, NEVER, TOLERANCE)

        def save(state: FitState) -> None:
            if int(state.iterate.step) % self.every == 0:
                states.append(state)

        self.fit(self.observation, self.model, stopping=stopping, save=save, **self.options)
        last = [state for state in states if state.stage == states[-1].stage]
        return [Look(int(s.iterate.step), bool((s.waited == 0).all()), self.product(s, stopping)) for s in last]

    def product(self, state: FitState, stopping: Stopping) -> np.ndarray:
        """The product at a state: the fit goes on from it, and its end is come."""
        ended = dataclasses.replace(state, total=int(state.iterate.step), kept=state.iterate.params)
        found = self.fit(
            self.observation, self.model, stopping=stopping, restore=lambda begin: ended, **self.options
        )  # fmt: skip
        return np.asarray(found.product[0])

    def colour(self, product: np.ndarray) -> float:
        """The `colour` of what a product leaves of both images."""
        seen = self.model(jnp.asarray(product)[None])
        return sum(colour(np.asarray(seen[key] - self.observation[key])[0]) for key in seen)


def chosen(improved: Sequence[bool], patience: int = PATIENCE) -> int:
    """The look that a rule takes: the last one that improved before so many did not, as `Stopping` does."""
    best = 0
    for look, better in enumerate(improved):
        if better:
            best = look
        elif look - best >= patience:
            break
    return best


def falls(values: Sequence[float]) -> list[bool]:
    """Whether each value is smaller than the smallest before by the share `TOLERANCE`, as `Stopping` judges it."""
    best, improved = math.inf, []
    for value in values:
        improved.append(value < best * (1 - TOLERANCE) or best == math.inf)
        best = value if improved[-1] else best
    return improved


def colour(residual: np.ndarray) -> float:
    """Energy of a residual's autocorrelation at the eight nearest lags, a mean over bands; 0 for white noise.

    Args:
        residual: ``(height, width, band)``.
    """
    residual = residual - residual.mean((0, 1))
    power = np.square(residual).mean((0, 1)) + np.finfo(np.float32).tiny
    energy = 0.0
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        near = np.roll(residual, (down, right), (0, 1))[1:-1, 1:-1]
        energy += 2 * float(np.square((near * residual[1:-1, 1:-1]).mean((0, 1)) / power).mean())
    return energy


def choose(subject: Subject) -> tuple[list[Look], dict[str, tuple[int, np.ndarray]]]:
    """The looks at the fit, and the step and product of each rule that can be applied; without truth."""
    looks, apart = subject.looks(), subject.looks(HELD_OUT)
    own = chosen([look.improved for look in looks])
    other = chosen([look.improved for look in apart])
    found = {
        LAST: (subject.total, subject.last),
        PLATEAU: (looks[own].step, looks[own].product),
        PIXELS: (apart[other].step, apart[other].product),
    }
    if subject.model.known:
        white = chosen(falls([subject.colour(look.product) for look in looks]))
        found[WHITE] = (looks[white].step, looks[white].product)
    return looks, found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the rules came to, in the light of the truth.

    Attributes:
        steps: of the looks.
        psnr: there, dB.
        rows: metrics of each rule's product; the oracle's first.
        products: by rule.
    """

    steps: list[int]
    psnr: list[float]
    rows: list[Row]
    products: dict[str, np.ndarray]


def judge(where: Judged, name: str, looks: list[Look], found: dict[str, tuple[int, np.ndarray]]) -> Outcome:
    """Compares all products with the truth."""
    ratio, reference, observation = where.test.model.ratio, where.reference, where.test.observation

    def metrics(product: np.ndarray) -> dict[str, float]:
        return against_reference(product, reference, ratio=ratio, data_range=where.data_range)

    error = [float(np.mean((look.product - reference) ** 2)) for look in looks]
    best = looks[int(np.argmin(error))]
    rules = {ORACLE: (best.step, best.product), **found}
    values = {rule: metrics(product) for rule, (_, product) in rules.items()}
    row = Row(
        scene=where.name,
        task=spatiospectral_task(observation["lr"].shape[-1], observation["guide"].shape[-1]).name,
        system=name,
        family="prior",
        protocol=where.protocol,
        metrics={},
        parameters=None,
        seconds=math.nan,
        peak_memory_mib=None,
        product="",
        reference=None,
    )
    behind = {rule: values[ORACLE]["PSNR"] - value["PSNR"] for rule, value in values.items()}
    rows = [
        dataclasses.replace(
            row,
            system=rule,
            metrics={**values[rule], "dB behind the oracle": behind[rule]},
            note=f"step {step} of {found[LAST][0]}",
        )
        for rule, (step, _) in rules.items()
    ]
    curve = [metrics(look.product)["PSNR"] for look in looks]
    return Outcome([look.step for look in looks], curve, rows, {rule: product for rule, (_, product) in rules.items()})


def study(case: str, settings: Settings) -> tuple[Judged, Outcome]:
    """Fits, chooses and judges.

    Raises:
        InputError: no such case.
    """
    scene, name = case_of(case, STEPS)
    where = ground(scene, settings.smoke, settings.noise)
    method = check_fitted(catalogue.get(name))
    steps = 20 if settings.smoke else STEPS[name]
    sizes = small(method, settings.smoke)
    with bar(case) as progress:
        options = {"key": jax.random.key(settings.seed), "effort": steps / method.steps, "progress": progress, **sizes}
        looks, found = choose(Subject.of(method.fit, where.test.observation, where.test.model, options, settings.looks))
    return where, judge(where, name, looks, found)


def section(case: str, where: Judged, outcome: Outcome) -> SceneSection:
    """What the page says about a case."""
    best, oracle = max(outcome.psnr), {row.system: row for row in outcome.rows}[ORACLE]
    behind = [f"{row.system} {row.metrics['dB behind the oracle']:+z.2f} dB" for row in outcome.rows[1:]]
    steps = np.array(outcome.steps)
    curves = {"fit": np.array(outcome.psnr), ORACLE: np.full(len(steps), best)}
    return where.section(
        case,
        text=f"The truth would stop at {oracle.note}. Behind that: {', '.join(behind)}; what is below zero is better "
        "than every look, by its average or by its pixels.",
        products=outcome.products,
        rows=outcome.rows,
        plots=[
            lines(
                f"{case.replace('/', '-').replace('_', '-')}-psnr", "the truth along the fit", steps, curves,
                xlabel="step", ylabel="PSNR (dB)", dashed=[ORACLE],
            )
        ],
    )  # fmt: skip


STUDY = Study(
    "stopping",
    "Stopping without truth, beside the oracle",
    "What each rule chose without truth, and the look that the truth would have chosen.",
    ("scene/system", "rule", "chosen:", "PSNR:", "behind the oracle:"),
)


def run(settings: Settings) -> Path:
    """Studies all cases, writes table and page, and returns the path of the table; raises as `studied`."""

    def case(name: str) -> tuple[list[str], SceneSection]:
        where, outcome = study(name, settings)
        rows = [
            f"| {name} | {row.system} | {row.note} | {row.metrics['PSNR']:.2f} dB | "
            f"{row.metrics['dB behind the oracle']:z.2f} dB |"
            for row in outcome.rows
        ]
        return rows, section(name, where, outcome)

    return studied(STUDY, settings.out, settings.cases[: 1 if settings.smoke else None], case)


if __name__ == "__main__":
    use_all_cores()
    asked = tyro.cli(Settings, prog="python -m experiments.stopping")
    sys.exit(answered(lambda: print(run(asked))))
