"""The demonstration: three embedded real scenes; classical, unrolled and untrained systems; one page.

Jasper Ridge is simulated by Wald's protocol and so has a truth; the pair over Paris and the Landsat-8 pair are what the
sensors gave. Everything that learns does so here and now, from another region or from the pair itself.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jfusion.data import scenes
from jfusion.data.scene import Scene
from jfusion.data.simulate import Protocol, Simulation, simulate
from jfusion.files import check_output, make_folder
from jfusion.inference.evaluate import CONVENTIONS
from jfusion.inference.fuse import fuse
from jfusion.inference.pair import Pair, make_pair, product_outline
from jfusion.operators import ObservationModel
from jfusion.operators.estimate import Estimate, estimate
from jfusion.report.compare import Contest, Trial, responses, rows_of, stage_views
from jfusion.report.content import Degradation, SceneSection
from jfusion.report.environment import environment
from jfusion.report.page import write_page
from jfusion.report.results import write_results

UNROLLED = "sun"
"""The unrolled network that is trained on the spot; the published ones take longer than the demonstration may."""

LEFT, RIGHT = (0, 100, 0, 48), (0, 100, 52, 100)
"""Regions of Jasper Ridge: networks learn on the left one and are judged on the right one, four columns away."""

JASPER = Protocol(
    ratio=4, guide_sensor="landsat8_oli", guide_bands=("B1", "B2", "B3", "B4", "B5", "B6", "B7"), lr_snr_db=35,
    guide_snr_db=40, seed=1, crop=RIGHT, data_range=0.5,
)  # fmt: skip
LEARN = dataclasses.replace(JASPER, crop=LEFT, seed=2)
"""What networks learn from, with other noise."""

SETTINGS: dict[str, dict[str, Any]] = {
    UNROLLED: {"steps": 200, "budget": 90.0},
    "udaln": {"budget": 60.0},
}
"""Seconds for what is trained or fitted, and sizes where the paper's are too large for minutes."""

WITH_TRUTH = ("cubic", "interp23", "brovey", "gsa", "bdsd", "sfim", "mtf_glp", "mtf_glp_hpm", "cnmf", "hysure", "fuse",
              UNROLLED, "udaln")  # fmt: skip
BLIND = ("cubic", "gsa", "sfim", "mtf_glp_hpm", "cnmf", "hysure", "fuse")
SHARPEN = ("cubic", "brovey", "gsa", "bdsd", "sfim", "mtf_glp_hpm", "mtf_glp_cbd", "fuse")


def demo(folder: Path = Path("runs/demo"), quiet: bool = False) -> Path:
    """Runs the demonstration and returns the path of its page.

    Writes ``index.html`` and ``results.json`` into ``folder`` and each product as a GeoTIFF into a folder of its scene,
    which it empties first.

    Raises:
        InputError: the folder cannot be written to.
    """
    make_folder(folder)
    check_output(folder / "index.html", overwrite=True)
    for name in ("jasper_ridge", "paris_hs_pan", "landsat8_momotombo"):
        shutil.rmtree(folder / name, ignore_errors=True)
    sections = [jasper_ridge(folder, quiet), paris(folder, quiet), momotombo(folder, quiet)]
    write_results(folder / "results.json", [row for section in sections for row in section.rows])
    page = folder / "index.html"
    write_page(page, "jfusion demo", __doc__.partition("\n\n")[2], sections, CONVENTIONS, environment())
    return page


def compete(contest: Contest, names: tuple[str, ...], folder: Path, quiet: bool) -> dict[str, Trial]:
    """All named systems on one pair."""
    return {name: contest.try_system(name, folder, quiet=quiet, **SETTINGS.get(name, {})) for name in names}


def degradation(
    found: Estimate, wavelengths: np.ndarray | None, true: ObservationModel | None, side: int
) -> Degradation:
    """Estimated sensor responses beside the true ones."""
    models = {"estimated": found.model} if true is None else {"true": true, "estimated": found.model}
    return Degradation("Sensor responses that least squares on the pair found (HySure)", wavelengths=wavelengths,
                       **responses(models, side))  # fmt: skip


def blind(pair: Simulation | Pair) -> Estimate:
    """PSF and SRF of a pair, estimated from its two images alone."""
    return estimate(pair.observation, ObservationModel({"lr": None, "guide": None}, pair.model.grid))


def facts(scene: Scene, **more: Any) -> dict[str, Any]:
    """What the page says about a scene."""
    return {**more, "licence": scene.licence or "", "citation": scene.citation or ""}


def downloads(trials: dict[str, Trial]) -> list[tuple[str, str]]:
    """Links to the products."""
    return [(name, trial.row.product) for name, trial in trials.items()]


def jasper_ridge(folder: Path, quiet: bool) -> SceneSection:
    """With truth: every family on a simulated pair; networks learn on one region and are judged on another."""
    hsi = scenes.load("jasper_ridge")["hsi"]
    assert hsi.wavelengths is not None
    test, learn = (simulate(hsi.physical(), hsi.wavelengths, protocol) for protocol in (JASPER, LEARN))
    reference = np.asarray(test.target[0])
    contest = Contest(
        "jasper_ridge", test.observation, test.model, dataclasses.replace(hsi, scale=1.0, nodata=None),
        JASPER.to_dict(), reference, learn, JASPER.data_range,
    )  # fmt: skip
    trials = compete(contest, WITH_TRUTH, folder, quiet)
    found, network = blind(test), trials[UNROLLED].run.network
    assert network is not None
    return SceneSection(
        title="Jasper Ridge",
        text="An airborne hyperspectral image serves as the truth. Blurred and thinned by four it becomes the coarse "
        "image, seen through Landsat-8's bands it becomes the guide, and both get noise. The left half of the scene "
        "is for learning, the right half is judged.",
        facts=facts(
            hsi,
            sensor="AVIRIS",
            size=f"{reference.shape[0]} x {reference.shape[1]} x {reference.shape[2]}",
            ratio=4,
            noise="35 dB on the coarse image, 40 dB on the guide",
            data_range=JASPER.data_range,
        ),
        inputs={k: np.asarray(v[0]) for k, v in test.observation.items()},
        rgb=hsi.rgb_bands(),
        guide_rgb=(3, 2, 1),
        products={name: trial.product for name, trial in trials.items()},
        reference=reference,
        wavelengths=hsi.wavelengths,
        rows=rows_of(trials),
        stages=stage_views(network, test.observation, test.model),
        stages_system=UNROLLED,
        degradation=degradation(found, hsi.wavelengths, test.model, 17),
        downloads=downloads(trials),
        unit="reflectance",
    )


def paris(folder: Path, quiet: bool) -> SceneSection:
    """A real pair without truth: the sensors' responses are estimated from the pair."""
    images = scenes.load("paris_hs_pan")
    hsi, pan = images["hsi"], images["pan"]
    pair = make_pair(hsi, pan)
    found = blind(pair)
    contest = Contest(
        "paris_hs_pan", pair.observation, found.model, product_outline(pair.lr, pair.guide),
        {"ratio": pair.geometry.ratio, "model": "PSF and SRF estimated from the pair"},
    )  # fmt: skip
    trials = compete(contest, BLIND, folder, quiet)
    explained = float(np.mean(found.r_squared))
    return SceneSection(
        title="Paris (EO-1)",
        text="What two instruments of one satellite gave over the Gare du Nord: Hyperion's spectra at 30 m and ALI's "
        "panchromatic band at 10 m. Nobody knows the truth, and neither PSF nor SRF were given: both are estimated "
        f"from the pair and explain {explained:.1%} of the variance that the two images share.",
        facts=facts(hsi, sensors="Hyperion, ALI", size=f"{pan.height} x {pan.width} x {hsi.bands}", ratio=3),
        inputs={k: np.asarray(v[0]) for k, v in pair.observation.items()},
        rgb=hsi.rgb_bands(),
        products={name: trial.product for name, trial in trials.items()},
        reference=None,
        wavelengths=hsi.wavelengths,
        rows=rows_of(trials),
        degradation=degradation(found, hsi.wavelengths, None, 13),
        downloads=downloads(trials),
        unit="reflectance",
    )


def momotombo(folder: Path, quiet: bool) -> SceneSection:
    """The practitioner's way: two GeoTIFFs in, one cloud-optimised GeoTIFF out, and what other systems make of it."""
    name = "landsat8_momotombo"
    msi, pan = (scenes.path(name, role) for role in ("msi", "pan"))
    target = folder / name / "sharp.tif"
    target.parent.mkdir(parents=True, exist_ok=True)
    sharp = fuse(msi, pan, target, overwrite=True)
    images = scenes.load(name)
    pair = make_pair(images["msi"], images["pan"])
    valid = pair.valid
    contest = Contest(
        name, pair.observation, pair.model, dataclasses.replace(product_outline(pair.lr, pair.guide), scale=1.0,
        offset=0.0), {"ratio": pair.geometry.ratio, "centre": pair.geometry.centre},
        mask=None if valid.all() else valid,
    )  # fmt: skip
    trials = compete(contest, SHARPEN, folder, quiet)
    if not quiet:
        print(f"{name}: {sharp.system} wrote {target} in {sharp.seconds:.1f} s", file=sys.stderr)
    lr = pair.lr
    return SceneSection(
        title="Momotombo (Landsat-8)",
        text="Two files as they are downloaded: six bands at 30 m and the panchromatic band at 15 m, whose pixel "
        f"centres coincide. The command “jfusion fuse msi.tif pan.tif sharp.tif” takes {sharp.system} by default and"
        " writes a cloud-optimised GeoTIFF in the right place with the right numbers. Infrared bands "
        "lie outside the panchromatic band, so their detail is borrowed, not seen; moving clouds show coloured edges "
        "because the bands look at different moments.",
        facts=facts(lr, sensor="OLI", size=f"{pair.guide.height} x {pair.guide.width} x {lr.bands}", ratio=2,
                    crs=pair.guide.crs, grid=str(pair.geometry)),
        inputs={k: np.asarray(v[0]) for k, v in pair.observation.items()},
        rgb=lr.rgb_bands(),
        products={key: trial.product for key, trial in trials.items()},
        reference=None,
        wavelengths=lr.wavelengths,
        rows=rows_of(trials),
        downloads=[("sharp.tif, cloud-optimised", f"{name}/sharp.tif"), *downloads(trials)],
        unit="reflectance",
    )  # fmt: skip
