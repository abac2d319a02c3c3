"""The benchmarks. A new one is an entry here, if it is published in one of the forms of `layouts`.

Keys, file names and sizes were checked against public code that reads the files, licences against the read-me files
that come with them; what could not be checked is called unverified.
"""

import numpy as np

from jfusion import sensors
from jfusion.data import scenes
from jfusion.data.builders.dataset import Dataset
from jfusion.data.builders.layouts import BandFiles, Cube, Embedded, PairFiles, SceneFiles
from jfusion.data.builders.regions import Region, ssrnet, tiles

EHU = "the Computational Intelligence Group of the University of the Basque Country (UPV/EHU)"
EHU_ADDRESS = "https://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes"
SSRNET = "Protocol ssrnet: X. Zhang et al., TGRS 2020, the middle 128 x 128 pixels are the test."
HYPERKITE = "Protocol hyperkite: W. G. C. Bandara et al., TGRS 2022 (DIP-HyperKite), and HyperTransformer, whole tiles."
ROSIS = (
    "ROSIS, 1.3 m; centres evenly spaced over its 430 to 860 nm, since it is not published which of its 115 bands were "
    "left out."
)


def _evenly(first: float, last: float, bands: int) -> tuple[float, ...]:
    """Band centres in nm, to 0.1 nm."""
    return tuple(float(centre) for centre in np.linspace(first, last, bands).round(1))


def _scenes(*words: str, suffix: str = "") -> tuple[str, ...]:
    return tuple(word + suffix for text in words for word in text.split())


CAVE_SCENES = _scenes(
    "balloons beads cd chart_and_stuffed_toy clay cloth egyptian_statue face fake_and_real_beers fake_and_real_food",
    "fake_and_real_lemon_slices fake_and_real_lemons fake_and_real_peppers fake_and_real_strawberries",
    "fake_and_real_sushi fake_and_real_tomatoes feathers flowers glass_tiles hairs jelly_beans oil_painting paints",
    "photo_and_face pompoms real_and_fake_apples real_and_fake_peppers sponges stuffed_toys superballs thread_spools",
    "watercolors",
    suffix="_ms",
)
CAVE_MHF_TRAIN = (2, 31, 25, 6, 27, 15, 19, 14, 12, 28, 26, 29, 8, 13, 22, 7, 24, 30, 10, 23)
CAVE_MHF_TEST = (18, 17, 21, 3, 9, 4, 20, 5, 16, 32, 11, 1)
CAVE_HSRNET_TEST = _scenes(
    "balloons cd chart_and_stuffed_toy clay fake_and_real_beers fake_and_real_lemon_slices fake_and_real_tomatoes",
    "feathers flowers hairs jelly_beans",
    suffix="_ms",
)
CAVE = Dataset(
    name="cave",
    title="CAVE multispectral image database",
    layout=BandFiles(bands=31),
    protocols={
        "first20": {"train": CAVE_SCENES[:20], "test": CAVE_SCENES[20:]},
        "mhf": {
            "train": tuple(CAVE_SCENES[number - 1] for number in CAVE_MHF_TRAIN),
            "test": tuple(CAVE_SCENES[number - 1] for number in CAVE_MHF_TEST),
        },
        "hsrnet": {
            "train": tuple(s for s in CAVE_SCENES if s not in (*CAVE_HSRNET_TEST, "watercolors_ms")),
            "test": CAVE_HSRNET_TEST,
        },
    },
    origin="the Computer Vision Laboratory of Columbia University (complete_ms_data.zip)",
    address="https://cave.cs.columbia.edu/repository/Multispectral",
    licence="none is stated; made available to the research community, cite the authors.",
    citation="F. Yasuma, T. Mitsunaga, D. Iso, S. K. Nayar, Generalized Assorted Pixel Camera, CUCS-061-08, 2008",
    note=(
        "Protocol first20: the first 20 of the 32 scenes in alphabetical order train, 12 test (DHSIS, DHIF-Net "
        "and many others). Protocol mhf: the fixed permutation of MHF-Net (Q. Xie et al., CVPR 2019), read as "
        "alphabetical numbers; the release applies it twice, so that its split depends on the file system. "
        "Protocol hsrnet: 20 train, 11 test, watercolors left out; the list is from a public re-preparation of "
        "that family (HSRnet, Fusformer, PSRT), the authors' own is unverified. The bands are 16-bit PNG files; "
        "those of watercolors are stored with colours and alpha. The colour pictures (BMP) that come along are "
        "not used."
    ),
    data_range=65535,
    wavelengths=tuple(range(400, 701, 10)),
)

HARVARD_SCENES = _scenes(
    "img1 img2 imga1 imga2 imga5 imga6 imga7 imgb0 imgb1 imgb2 imgb3 imgb4 imgb5 imgb6 imgb7 imgb8 imgb9 imgc1 imgc2",
    "imgc4 imgc5 imgc7 imgc8 imgc9 imgd2 imgd3 imgd4 imgd7 imgd8 imgd9 imge0 imge1 imge2 imge3 imge4 imge5 imge6 imge7",
    "imgf1 imgf2 imgf3 imgf4 imgf5 imgf6 imgf7 imgf8 imgh0 imgh1 imgh2 imgh3",
)
HARVARD = Dataset(
    name="harvard",
    title="Harvard real-world hyperspectral images (CZ_hsdb, 50 images under daylight)",
    layout=SceneFiles(key="ref", bands=31, dtype="float32"),
    protocols={"first30": {"train": HARVARD_SCENES[:30], "test": HARVARD_SCENES[30:]}},
    origin="Harvard University (CZ_hsdb.tgz)",
    address="https://vision.seas.harvard.edu/hyperspec/download.html",
    licence="released for research and academic use, not for commercial use; cite the authors.",
    citation="A. Chakrabarti, T. Zickler, Statistics of Real-World Hyperspectral Images, CVPR 2011, 193-200",
    note=(
        "Protocol first30: 30 images train and 20 test, as the fusion papers say; that theirs are the first 30 in "
        "alphabetical order is unverified. The mask lbl of regions that moved is not stored, nor is the camera's "
        "sensitivity calib.txt applied. Papers use the top left 1024 x 1024 pixels or all 1040 x 1392. Releases with "
        "one response for CAVE and Harvard must apply it band by band; here it is taken at Harvard's wavelengths."
    ),
    wavelengths=tuple(range(420, 721, 10)),
)

PAVIA_UNIVERSITY = Dataset(
    name="pavia_university",
    title="Pavia University",
    layout=Cube("PaviaU.mat", (610, 340, 103), "uint16", key="paviaU"),
    protocols={"ssrnet": ssrnet(610, 340)},
    origin=EHU,
    address=EHU_ADDRESS,
    licence="none is stated (unverified); the scene was provided by Prof. Paolo Gamba, University of Pavia.",
    citation="P. Gamba, University of Pavia: ROSIS scene of Pavia University",
    note=f"{SSRNET} {ROSIS} That the file holds 16-bit integers is unverified.",
    wavelengths=_evenly(430, 860, 103),
)

PAVIA_TEST = (1, 3, 9, 12, 20, 21, 23)
PAVIA_TRAIN = (4, 5, 7, 8, 10, 11, 13, 14, 16, 18, 19, 24)
PAVIA_CENTRE = Dataset(
    name="pavia_centre",
    title="Pavia Centre",
    layout=Cube("Pavia.mat", (1096, 715, 102), "uint16", key="pavia"),
    protocols={
        "hyperkite": {"train": tiles(715, (160, 160), PAVIA_TRAIN), "test": tiles(715, (160, 160), PAVIA_TEST)},
        "ssrnet": ssrnet(1096, 715),
    },
    origin=EHU,
    address=EHU_ADDRESS,
    licence="none is stated (unverified); the scene was provided by Prof. Paolo Gamba, University of Pavia.",
    citation="P. Gamba, University of Pavia: ROSIS scene of Pavia Centre",
    note=(
        f"{HYPERKITE} Tiles of 160 x 160: the published training list of 17 tiles also has 5 of the 7 test tiles "
        f"(1, 3, 20, 21, 23), which are left out of train here. {SSRNET} {ROSIS} That the file holds 16-bit integers "
        "is unverified."
    ),
    data_range=8000,
    wavelengths=_evenly(430, 860, 102),
)

BOTSWANA_TEST = (1, 4, 8, 12, 16, 19)
BOTSWANA_TRAIN = (2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 20, 21, 22, 23, 24)
BOTSWANA_CHANNELS = ((10, 55), (82, 97), (102, 119), (134, 164), (187, 220))
BOTSWANA = Dataset(
    name="botswana",
    title="Botswana",
    layout=Cube("Botswana.mat", (1476, 256, 145), "uint16", key="Botswana"),
    protocols={
        "hyperkite": {"train": tiles(256, (120, 120), BOTSWANA_TRAIN), "test": tiles(256, (120, 120), BOTSWANA_TEST)},
        "ssrnet": ssrnet(1476, 256),
    },
    origin=EHU,
    address=EHU_ADDRESS,
    licence=(
        "none is stated for the processed scene (unverified); EO-1 Hyperion imagery is in the public domain (USGS)."
    ),
    citation=(
        "NASA EO-1 Hyperion, Okavango Delta, 31 May 2001; Center for Space Research, University of Texas at Austin"
    ),
    note=(
        f"{HYPERKITE} Tiles of 120 x 120, 18 train and 6 test; the authors clip at 8000 (ratio 3) or 7365 (ratio "
        f"4), which is not done here. {SSRNET} 30 m. That the file holds 16-bit integers is unverified."
    ),
    data_range=7365,
    wavelengths=tuple(
        float(centre)
        for first, last in BOTSWANA_CHANNELS
        for centre in sensors.get("eo1_hyperion").centres[first - 1 : last]
    ),
)

WASHINGTON_DC_MALL = Dataset(
    name="washington_dc_mall",
    title="Washington DC Mall",
    layout=Cube("dc.tif", (1280, 307, 191), "int16"),
    protocols={"ssrnet": ssrnet(1280, 307)},
    origin="the MultiSpec project of Purdue University",
    address="https://engineering.purdue.edu/~biehl/MultiSpec/hyperspectral.html",
    licence=(
        "none is stated; provided with the permission of the Spectral Information Technology Application Center "
        "of Virginia, which collected it."
    ),
    citation="D. A. Landgrebe, Signal Theory Methods in Multispectral Remote Sensing, Wiley 2003",
    note=(
        f"{SSRNET} HYDICE, 23 August 1995. The address is unverified. The centres of the 191 channels are listed "
        "in the text that comes with the file."
    ),
)

CHIKUSEI_TEST = (5, 8, 13, 16, 20, 24, 27, 31, 32, 37, 41, 48, 52, 56, 61, 64, 67, 70, 75, 79)
CHIKUSEI = Dataset(
    name="chikusei",
    title="Chikusei",
    layout=Cube("HyperspecVNIR_Chikusei_20140729.mat", (2517, 2335, 128), "float32", key="chikusei"),
    protocols={
        "hyperkite": {
            "train": tiles(2335, (256, 256), (k for k in range(1, 82) if k not in CHIKUSEI_TEST)),
            "test": tiles(2335, (256, 256), CHIKUSEI_TEST),
        },
        "strip": {
            "train": tuple(
                Region(top, top + 448, left, left + 512)
                for top in range(618, 2410, 448)
                for left in range(143, 2191, 512)
            ),
            "test": tuple(Region(106, 618, left, left + 512) for left in range(143, 2191, 512)),
        },
    },
    origin="Naoto Yokoya, Space Application Laboratory, University of Tokyo (MATLAB format)",
    address="https://naotoyokoya.com/Download.html",
    licence="Creative Commons Attribution 3.0; acknowledge the Space Application Laboratory, University of Tokyo.",
    citation=(
        "N. Yokoya, A. Iwasaki, Airborne hyperspectral data over Chikusei, SAL-2016-05-27, University of Tokyo, 2016"
    ),
    note=(
        f"{HYPERKITE} Tiles of 256 x 256, 61 train and 20 test; the authors cut outliers at the maximum of the "
        "blurred scene, which is not done here, and two of their configurations disagree on the maximum (15133 "
        "and 9725). Protocol strip: the usual preparation for super-resolution, the inner 2304 x 2048 pixels, "
        "whose first 512 rows are four test images; the rest is cut into 16 pieces here. Headwall "
        "Hyperspec-VNIR-C, 2.5 m; centres evenly spaced from 363 to 1018 nm, which 128 bands of four times 1.29 nm "
        "fill. The file is of version 7.3, of about 3 GB in single precision; "
        "its number type is unverified. All of it must fit into memory."
    ),
    data_range=15133,
    wavelengths=_evenly(363, 1018, 128),
)

HOUSTON_2013 = Dataset(
    name="houston2013",
    title="Houston 2013 (IEEE GRSS Data Fusion Contest)",
    layout=Cube("2013_IEEE_GRSS_DF_Contest_CASI.tif", (349, 1905, 144), "uint16"),
    protocols={
        "bmhf": {
            "train": (Region(4, 344, 0, 680), Region(4, 344, 1565, 1905)),
            "test": (Region(4, 344, 680, 1565),),
        }
    },
    origin="the University of Houston and the IEEE GRSS",
    address="https://hyperspectral.ee.uh.edu/?page_id=459",
    licence=(
        "terms of the contest (unverified in their wording): research use with acknowledgement of the NSF-funded "
        "Center for Airborne Laser Mapping (NCALM), the University of Houston and the IEEE GRSS; no right to pass "
        "it on."
    ),
    citation=(
        "C. Debes et al., Hyperspectral and LiDAR Data Fusion: Outcome of the 2013 GRSS Data Fusion Contest, "
        "JSTARS 7(6), 2014"
    ),
    note=(
        "Protocol bmhf: blind MHF-Net (Q. Xie et al., 2020), two strips train, what is between them tests. The "
        "contest's own split is of labelled pixels and is not used. The original image with its cloud shadow, not "
        "the corrected one that circulates. CASI, 2.5 m; centres evenly spaced from 364 to 1046 nm, which is "
        "unverified."
    ),
    wavelengths=_evenly(364, 1046, 144),
)

HOUSTON_2018 = Dataset(
    name="houston2018",
    title="Houston 2018 (IEEE GRSS Data Fusion Contest)",
    layout=Cube(
        "20170218_UH_CASI_S4_NAD83.pix",
        (1202, 4172, 50),
        "float32",
        header="20170218_UH_CASI_S4_NAD83.hdr",
        bands=48,
    ),
    protocols={
        "contest": {
            "train": tiles(4172, (601, 596), (9, 10, 11, 12)),
            "test": tiles(4172, (601, 596), (*range(1, 9), 13, 14)),
        }
    },
    origin="the University of Houston and the IEEE GRSS (phase2.zip, folder FullHSIDataset)",
    address="https://hyperspectral.ee.uh.edu/?page_id=1075",
    licence=(
        "terms of the contest (unverified in their wording): research use with acknowledgement of the National "
        "Center for Airborne Laser Mapping, the University of Houston and the IEEE GRSS; no right to pass it on."
    ),
    citation=(
        "Y. Xu et al., Advanced Multi-Sensor Optical Remote Sensing for Urban Land Use and Land Cover "
        "Classification: Outcome of the 2018 IEEE GRSS Data Fusion Contest, JSTARS 12(6), 2019"
    ),
    note=(
        "Protocol contest: of the 2 x 7 tiles of 601 x 596 pixels, the four with the contest's training labels "
        "train. The file has 50 bands, of which the last two are not spectral and are left out. Fusion papers use "
        "crops of their own, which they do not state. CASI, 1 m; centres from the header, to 0.1 nm. The number "
        "type is unverified; single precision holds 16-bit integers as they are."
    ),
    wavelengths=_evenly(374.4, 1047.1, 48),
)


def _pancollection(key: str, title: str, bands: int, data_range: int, sensor: str | None) -> tuple[Dataset, Dataset]:
    """Reduced-resolution patches and images with truth, and full-resolution images without."""
    reduced = {"train": f"train_{key}", "valid": f"valid_{key}", "test": f"test_{key}_multiExm1"}
    full = {"test": f"test_{key}_OrigScale_multiExm1"}
    first, second = (
        Dataset(
            name=f"pancollection_{key}{suffix}",
            title=f"PanCollection {title}, {resolution} resolution",
            layout=PairFiles(bands, truth),
            protocols={
                "published": {split: (f"{file}.h5",) for split, file in files.items()},
                "test_only": {"test": (f"{files['test']}.h5",)},
            },
            origin="Liang-Jian Deng, University of Electronic Science and Technology of China",
            address="https://github.com/liangjiandeng/PanCollection",
            licence=(
                "the repository is under GPL-3.0; the terms of the imagery itself are not stated there, so take "
                "it for research only."
            ),
            citation=(
                "L.-J. Deng et al., Machine Learning in Pansharpening: A Benchmark, from Shallow to Deep "
                "Networks, GRSM 10(3), 279-315, 2022"
            ),
            note=(
                "The publisher's own files are the splits; protocol test_only asks for the test images alone. "
                "Take the file of the test images of March 2023 or later: one of WorldView-3 was corrected then. "
                "The array lms (ms interpolated) is left out. The sizes of the published files say that they hold "
                "doubles; they are stored in single precision, unscaled. At reduced resolution ms was made by "
                "MTF-matched Gaussians and by taking every fourth pixel from number 2 on (DLPan-Toolbox; unverified "
                "for these very files), where the publisher's interpolation puts it back."
            ),
            data_range=data_range,
            sensor=sensor,
            centre=(2.0, 2.0),
        )
        for suffix, resolution, truth, files in (("", "reduced", True, reduced), ("_full", "full", False, full))
    )
    return first, second


PANCOLLECTION = (
    *_pancollection("wv3", "WorldView-3", 8, 2047, "worldview3"),
    *_pancollection("qb", "QuickBird", 4, 2047, "quickbird"),
    *_pancollection("gf2", "GaoFen-2", 4, 1023, None),
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        CAVE,
        HARVARD,
        PAVIA_UNIVERSITY,
        PAVIA_CENTRE,
        BOTSWANA,
        WASHINGTON_DC_MALL,
        CHIKUSEI,
        HOUSTON_2013,
        HOUSTON_2018,
        *PANCOLLECTION,
    )
}
"""All benchmarks by name."""


def embedded(name: str) -> Dataset:
    """A scene that comes with jfusion: its one example is the split "scene", since no split is published."""
    images = scenes.load(name)
    spectral = images.get("hsi", images.get("msi"))
    assert spectral is not None
    assert spectral.wavelengths is not None
    return Dataset(
        name=name,
        title=f"{name}, which comes with jfusion",
        layout=Embedded(name),
        protocols={"embedded": {"scene": (name,)}},
        origin="jfusion",
        address="",
        licence=spectral.licence or "",
        citation=spectral.citation or "",
        note=spectral.note or "",
        wavelengths=tuple(float(centre) for centre in spectral.wavelengths),
        scale={role: np.asarray(image.scale, float).tolist() for role, image in images.items()},
        offset={role: np.asarray(image.offset, float).tolist() for role, image in images.items()},
    )
