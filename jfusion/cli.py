"""The command line: thin over the library; heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jfusion import __version__
from jfusion.errors import InputError
from jfusion.process import answered, keep_programs, use_all_cores

if TYPE_CHECKING:
    from jfusion.data.scene import Scene

NEGATIVE = re.compile(r"^-(\d|\.\d|inf|nan)")
"""Words that are numbers and no options; argparse knows none with an exponent."""

REGISTRATION = ("affine", "explained", "before")
"""What `jfusion fuse --register --json` says of a `Registration`."""


def emit(value: Any) -> None:
    """Prints a value as JSON; nan and infinity become null."""
    from jfusion.report.results import finite

    print(json.dumps(finite(value), indent=2, allow_nan=False))


def demo(arguments: argparse.Namespace) -> None:
    use_all_cores()
    from jfusion.demo import demo

    page = demo(arguments.out, quiet=arguments.quiet)
    print(page)


def list_systems(arguments: argparse.Namespace) -> None:
    from jfusion import catalogue
    from jfusion.tasks import TASKS

    families = get_args(catalogue.Family)
    if arguments.task is not None and arguments.task not in TASKS:
        raise InputError(f"there is no task {arguments.task!r}; the tasks are {', '.join(TASKS)}.")
    if arguments.family is not None and arguments.family not in families:
        raise InputError(f"there is no family {arguments.family!r}; the families are {', '.join(families)}.")
    rows = [
        row
        for row in catalogue.systems().values()
        if arguments.task in (None, *row.tasks) and arguments.family in (None, row.family)
    ]
    if arguments.json:
        emit([{"name": r.name, "title": r.title, "family": r.family, "tasks": r.tasks} for r in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("system", "family", "title", "source", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.family, row.title, f"{row.paper.authors.split(',')[0]} {row.paper.year}")
    Console().print(table)


def show(arguments: argparse.Namespace) -> None:
    from jfusion import catalogue
    from jfusion.report.systems import as_dict, describe

    row = catalogue.get(arguments.name)
    if arguments.json:
        emit(as_dict(row))
    else:
        print(describe(row))


def show_sensors(arguments: argparse.Namespace) -> None:
    from jfusion import sensors

    if arguments.name is None:
        rows = [sensors.get(name) for name in sensors.names()]
        if arguments.json:
            emit([{"name": s.name, "title": s.title, "bands": s.band_names} for s in rows])
        else:
            for s in rows:
                print(f"{s.name:<16} {len(s.bands):>4} bands  {s.title}")
        return
    sensor = sensors.get(arguments.name)
    bands = [
        {"name": b.name, "kind": b.kind, "centre_nm": round(b.centre, 1), "fwhm_nm": round(b.fwhm, 1), "gsd_m": b.gsd,
         "mtf_gain": b.mtf_gain}
        for b in sensor.bands
    ]  # fmt: skip
    if arguments.json:
        emit({"name": sensor.name, "title": sensor.title, "source": sensor.source, "licence": sensor.licence,
              "bit_depth": sensor.bit_depth, "bands": bands})  # fmt: skip
        return
    print(f"{sensor.title}\nsource: {sensor.source}\nlicence: {sensor.licence}\n")
    print(f"{'band':<12} {'kind':<4} {'centre nm':>9} {'fwhm nm':>8} {'gsd m':>7} {'mtf gain':>8}")
    for b in bands:
        gsd = "-" if b["gsd_m"] is None else f"{b['gsd_m']:g}"
        print(f"{b['name']:<12} {b['kind']:<4} {b['centre_nm']:>9} {b['fwhm_nm']:>8} {gsd:>7} {b['mtf_gain']:>8.3f}")


def check_trained(name: str | None) -> None:
    """Raises InputError unless the system called ``name``, None for the default one, is trained and so has weights."""
    from jfusion import catalogue

    if name is None or not isinstance(catalogue.get(name).method, catalogue.Trained):
        raise InputError(f"{name or 'the default system'} has no weights to save; leave out --save-weights.")


def fuse(arguments: argparse.Namespace) -> None:
    use_all_cores()
    keep_programs()
    from jfusion.files import check_apart, check_folder, check_output

    check_output(arguments.output, arguments.overwrite)
    check_apart(arguments.output, *(folder for folder in (arguments.report, arguments.keep) if folder is not None))
    if arguments.save_weights is not None:
        check_output(arguments.save_weights, arguments.overwrite)
        check_apart(arguments.save_weights, arguments.output, arguments.lr, arguments.guide)
        check_trained(arguments.system)
    if arguments.report is not None:
        from jfusion.report.page import check_page

        check_folder(arguments.report)
        check_page(arguments.report / "index.html")
    from jfusion.data.readers.checks import existing_file

    for path in (arguments.lr, arguments.guide):
        existing_file(path)
    from jfusion.inference.fuse import fuse
    from jfusion.progress import bar

    names = ("system", *PAIR_OPTIONS, "weights", "budget", "seed", "tile", "memory", "dtype", "overwrite", "register",
             "estimate", "exact", "keep")  # fmt: skip
    options = {name: getattr(arguments, name) for name in names}
    if (level := arguments.uncertainty) is not None:
        if not 1 <= level < 100:
            raise InputError(
                f"--uncertainty must be a level in per cent, from 1 to below 100, but is {level:g}; say 90."
            )
        options["uncertainty"] = level / 100
    with bar(f"fusing {arguments.lr.name}", arguments.quiet) as progress:
        fused = fuse(
            arguments.lr, arguments.guide, arguments.output, cog=not arguments.no_cog, progress=progress, **options
        )
    if arguments.save_weights is not None and fused.network is not None:
        from jfusion.training import weights

        weights.save(arguments.save_weights, fused.network)
    report = None
    if arguments.report is not None:
        from jfusion.report.pair import report_pair

        same = {name: options[name] for name in PAIR_OPTIONS}
        report = report_pair(arguments.report, fused, arguments.lr, arguments.guide, **same)
    if not arguments.quiet:
        note = f"; {fused.note}" if fused.note else ""
        print(f"{fused.system} ({fused.task}): {fused.geometry}{note}", file=sys.stderr)
    found = fused.registration
    if arguments.json:
        emit({"output": str(fused.output), "system": fused.system, "task": fused.task, "ratio": fused.geometry.ratio,
              "centre": fused.geometry.centre, "windows": fused.windows, "seconds": round(fused.seconds, 3),
              "peak_memory_mib": fused.peak_memory_mib, "clipped": fused.clipped, "note": fused.note,
              "registration": found and {name: getattr(found, name).tolist() for name in REGISTRATION},
              "report": report and str(report)})  # fmt: skip
    else:
        print(fused.output)
        if report:
            print(report)


def import_weights(arguments: argparse.Namespace) -> None:
    from jfusion.files import check_output

    check_output(arguments.output, arguments.overwrite)
    from jfusion import catalogue
    from jfusion.catalogue import Bands
    from jfusion.training import weights
    from jfusion.training.originals.published import published

    bands = Bands(*arguments.bands) if arguments.bands else None
    network, original = published(catalogue.get(arguments.name), arguments.file, bands=bands, scale=arguments.scale)
    weights.save(arguments.output, network)
    if not arguments.quiet:
        told = f"{network.system.title} for {network.bands}; images are divided by {network.scale:g}."
        print(" ".join(filter(None, (told, original.note))), file=sys.stderr)
    print(arguments.output)


def _scene(text: str, key: str | None, nodata: float | None = None) -> Scene:
    """A file, or the first image of an embedded scene."""
    from jfusion.data import readers, scenes
    from jfusion.inference.pair import check_nodata

    if not Path(text).exists() and text in scenes.names():
        return next(iter(scenes.load(text).values()))
    scene = readers.read(Path(text), key=key, nodata=nodata)
    check_nodata(nodata, scene)
    return scene


def simulate(arguments: argparse.Namespace) -> None:
    from jfusion.data.simulate import Protocol
    from jfusion.inference.simulate import guide_bands, write_simulation

    if arguments.protocol is not None:
        for option in PROTOCOL_OPTIONS:
            if getattr(arguments, option) != arguments.parser.get_default(option):
                raise InputError(f"--protocol says all of the simulation; leave out --{option.replace('_', '-')}.")
    scene = _scene(arguments.image, arguments.key, arguments.nodata)
    if arguments.protocol is not None:
        try:
            protocol = Protocol.from_dict(json.loads(arguments.protocol.read_text()))
        except (OSError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{arguments.protocol} is not a protocol in JSON ({error}).") from error
    else:
        protocol = Protocol(
            ratio=arguments.ratio,
            kernel=arguments.kernel,
            width=arguments.width if arguments.width is not None else 0.3 if arguments.kernel == "mtf" else 1.0,
            guide_sensor=arguments.guide_sensor,
            guide_bands=tuple(arguments.guide_bands or guide_bands(scene, arguments.guide_sensor)),
            lr_snr_db=arguments.lr_snr,
            guide_snr_db=arguments.guide_snr,
            seed=arguments.seed,
        )
    for path in write_simulation(scene, protocol, arguments.folder, arguments.overwrite):
        print(path)


def evaluate(arguments: argparse.Namespace) -> None:
    from jfusion.inference.evaluate import evaluate_files
    from jfusion.metrics import WITHOUT_REFERENCE

    result = evaluate_files(
        arguments.product, arguments.reference, arguments.lr, arguments.guide, ratio=arguments.ratio,
        data_range=arguments.data_range, registering=arguments.register,
        **{name: getattr(arguments, name) for name in PAIR_OPTIONS},
    )  # fmt: skip
    if arguments.json:
        emit({name: {"value": v, "convention": c} for name, (v, c) in result.items()})
    else:
        for name, (value, convention) in result.items():
            print(f"{name:<12} {value:>12.5g}   {convention}")
    undefined = [name for name, (value, _) in result.items() if math.isnan(value) and name in WITHOUT_REFERENCE]
    if undefined and not arguments.quiet:
        print(f"{', '.join(undefined)} without a value: no whole block is free of pixels without data", file=sys.stderr)


def at_least(least: int) -> Callable[[str], int]:
    """An argument's type: whole numbers from ``least`` on."""

    def whole_number(text: str) -> int:
        if not least <= (value := int(text)) < 2**63:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, below 2^63, but is {text}")
        return value

    return whole_number


def seconds(text: str) -> float:
    """An argument's type: a positive time."""
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, but is {text}")
    return value


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-q", "--quiet", action="store_true", help="no progress and no remarks on standard error")
    common.add_argument("-v", "--verbose", action="store_true", help="show the cause of an error")
    return common


PROTOCOL_OPTIONS = ("ratio", "kernel", "width", "guide_sensor", "guide_bands", "lr_snr", "guide_snr", "seed")
"""What `jfusion simulate` makes a protocol of."""

PAIR_OPTIONS = ("lr_sensor", "guide_sensor", "lr_key", "guide_key", "nodata")
"""How two files are read, in `jfusion fuse` and `jfusion evaluate`."""


def _pair_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--lr-sensor", metavar="NAME[:BANDS]",
        help="see `jfusion sensors`; with some of its bands: landsat8_oli:B4,B3,B2 (default: from the metadata)",
    )  # fmt: skip
    sub.add_argument("--guide-sensor", metavar="NAME[:BANDS]", help="the same for GUIDE")
    sub.add_argument("--lr-key", metavar="KEY", help="array in a MATLAB or HDF5 file")
    sub.add_argument("--guide-key", metavar="KEY", help="the same for GUIDE")
    sub.add_argument("--nodata", type=float, metavar="NUMBER", help="value of invalid pixels, besides the files' own")


def _fuse_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("lr", type=Path, metavar="LR", help="the image with many bands and few pixels")
    sub.add_argument("guide", type=Path, metavar="GUIDE", help="the image with few bands and many pixels")
    sub.add_argument("output", type=Path, metavar="OUT", help="GeoTIFF to write")
    sub.add_argument(
        "--system", metavar="NAME",
        help="see `jfusion list`; module:NAME for a row of your own (default: that of --weights, or one that needs no "
        "training)",
    )  # fmt: skip
    _pair_options(sub)
    sub.add_argument(
        "--weights", type=Path, metavar="FILE",
        help="weights of a trained system (safetensors); without them it is trained on the pair",
    )  # fmt: skip
    sub.add_argument("--register", action="store_true", help="LR may be shifted, turned or deformed against GUIDE")
    sub.add_argument(
        "--estimate", action="store_true",
        help="estimate the sensors from the pair, in place of their tables and of what a system would learn",
    )  # fmt: skip
    sub.add_argument(
        "--exact",
        action="store_true",
        help="let the product of an unrolled network agree with LR, and with a guide of known response",
    )
    sub.add_argument("--save-weights", type=Path, metavar="FILE", help="keep what was trained")
    sub.add_argument("--budget", type=seconds, metavar="SECONDS", help="time for training or fitting")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of parameters and patches (default: 0)")
    sub.add_argument(
        "--tile", type=at_least(1), metavar="PIXELS", help="side of a window on GUIDE (default: by --memory)"
    )
    sub.add_argument(
        "--memory", type=at_least(1), default=1024, metavar="MIB",
        help="working memory of a window; most systems go by a window's own statistics; fits take more (default: 1024)",
    )  # fmt: skip
    sub.add_argument("--dtype", metavar="TYPE", help="of the output, such as uint16 (default: that of LR)")
    sub.add_argument("--no-cog", action="store_true", help="plain tiled GeoTIFF instead of a cloud-optimised one")
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")
    sub.add_argument("--report", type=Path, metavar="DIR", help="write a page about the product")
    sub.add_argument(
        "--uncertainty", type=float, nargs="?", const=90.0, metavar="PERCENT",
        help="one more band: half the width of an interval of that level, of systems that are fitted (90 if not said)",
    )  # fmt: skip
    sub.add_argument("--keep", type=Path, metavar="DIR", help="folder from which the same command goes on after a kill")
    sub.add_argument("--json", action="store_true", help="say what was done as JSON")


def _simulate_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("image", metavar="IMAGE", help="file, or name of an embedded scene")
    sub.add_argument("folder", type=Path, metavar="DIR", help="gets lr.tif, guide.tif, reference.tif, protocol.json")
    sub.add_argument("--protocol", type=Path, metavar="FILE", help="protocol.json of an earlier simulation")
    sub.add_argument("--ratio", type=at_least(1), default=4, metavar="N", help="default: %(default)s")
    sub.add_argument("--kernel", default="gaussian", metavar="NAME", help="gaussian, mtf or box (default: gaussian)")
    sub.add_argument(
        "--width", type=float, metavar="W",
        help="FWHM in LR pixels (default: 1) or, for mtf, the gain at the Nyquist frequency (default: 0.3)",
    )  # fmt: skip
    sub.add_argument("--guide-sensor", default="landsat8_oli", metavar="NAME", help="default: %(default)s")
    sub.add_argument("--guide-bands", nargs="+", metavar="BAND", help="default: multispectral ones that IMAGE covers")
    sub.add_argument("--lr-snr", type=float, metavar="DB", help="noise of lr (default: none)")
    sub.add_argument("--guide-snr", type=float, metavar="DB", help="noise of the guide (default: none)")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the noise (default: 0)")
    sub.add_argument("--key", metavar="KEY", help="array in a MATLAB or HDF5 file")
    sub.add_argument("--nodata", type=float, metavar="NUMBER", help="value of invalid pixels, besides the file's own")
    sub.add_argument("--overwrite", action="store_true", help="replace files in DIR")


def _evaluate_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("product", type=Path, metavar="PRODUCT")
    sub.add_argument("--reference", type=Path, metavar="FILE", help="the truth")
    sub.add_argument("--lr", type=Path, metavar="FILE", help="the pair, for metrics that need no truth")
    sub.add_argument("--guide", type=Path, metavar="FILE", help="the other image of the pair")
    _pair_options(sub)
    sub.add_argument("--ratio", type=at_least(1), metavar="N", help="of the pair, for ERGAS with --reference")
    sub.add_argument("--register", action="store_true", help="LR may be displaced, as in `jfusion fuse --register`")
    sub.add_argument("--data-range", type=float, metavar="X", help="full scale for PSNR and SSIM (default: maximum)")
    sub.add_argument("--json", action="store_true", help="as JSON")


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    top = argparse.ArgumentParser(
        prog="jfusion",
        description="Fuses remote sensing images: one with many bands and few pixels, one with few bands and many.",
        epilog="example: jfusion fuse ms.tif pan.tif sharp.tif",
    )
    top.add_argument("--version", action="version", version=f"jfusion {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()

    def command(name: str, work: Callable[[argparse.Namespace], None], summary: str, example: str) -> Any:
        sub = commands.add_parser(
            name, parents=[common], help=summary, description=summary, epilog=f"example: jfusion {example}"
        )
        sub.set_defaults(work=work, parser=sub)
        sub._negative_number_matcher = NEGATIVE
        return sub

    sub = command("demo", demo, "Fuse three embedded real scenes by systems of three families; write a page.", "demo")
    sub.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="folder (default: %(default)s)")

    sub = command("list", list_systems, "List the systems.", "list --task pansharpening")
    sub.add_argument("--task", help="pansharpening, hs_pansharpening or hs_ms")
    sub.add_argument("--family", help="classical, cnn, gan, transformer, unrolled or prior")
    sub.add_argument("--json", action="store_true", help="as JSON")

    sub = command("show", show, "Show a system: source, equations, sizes, recipe, differences.", "show mhf_net")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("--json", action="store_true", help="as JSON")

    sub = command("sensors", show_sensors, "List the sensors, or the bands of one.", "sensors landsat8_oli")
    sub.add_argument("name", metavar="NAME", nargs="?")
    sub.add_argument("--json", action="store_true", help="as JSON")

    sub = command(
        "fuse", fuse, "Fuse two images into a GeoTIFF on the finer grid.", "fuse ms.tif pan.tif sharp.tif --system gsa"
    )
    _fuse_options(sub)

    sub = command(
        "import", import_weights, "Make weights for `jfusion fuse` of a published file; `jfusion show` says which.",
        "import fusionnet fusionnet.pth fusionnet.safetensors",
    )  # fmt: skip
    sub.add_argument("name", metavar="NAME", help="system, see `jfusion list`")
    sub.add_argument("file", type=Path, metavar="FILE", help="of PyTorch, TensorFlow 1, Keras or MatConvNet")
    sub.add_argument("output", type=Path, metavar="OUT", help="safetensors file to write")
    sub.add_argument(
        "--bands", type=int, nargs=3, metavar=("LR", "GUIDE", "RATIO"), help="of the network (default: the paper's)"
    )
    sub.add_argument(
        "--scale", type=float, metavar="X", help="what images are divided by first (default: the release's)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace OUT")

    sub = command(
        "simulate", simulate, "Make a pair with truth from one hyperspectral image by Wald's protocol.",
        "simulate jasper_ridge pair --ratio 4 --lr-snr 35 --guide-snr 40",
    )  # fmt: skip
    _simulate_options(sub)

    sub = command(
        "evaluate", evaluate, "Compute the quality of a product.", "evaluate sharp.tif --reference truth.tif --ratio 4"
    )
    _evaluate_options(sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 failure, 2 bad input or usage."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        known = [word for action in options.parser._actions for word in action.option_strings]
        near = difflib.get_close_matches(unknown[0], known, 1)
        options.parser.error(f"no argument {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
    return answered(lambda: options.work(options), options.verbose)


if __name__ == "__main__":
    sys.exit(main())
