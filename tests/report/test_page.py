"""The page: self-contained, escaped, whole or absent, and true to what it was given."""

import base64
import dataclasses
import io
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jfusion.errors import InputError
from jfusion.report import Degradation, Row, SceneSection, StageView, figures, write_page
from jfusion.report.pictures import Stretch
from jfusion.report.plots import lines

RNG = np.random.default_rng(1)
TRUTH = RNG.uniform(0.1, 0.9, (12, 16, 5)).astype(np.float32)
LR = TRUTH.reshape(6, 2, 8, 2, 5).mean((1, 3))
PRODUCTS = {
    "cubic": LR.repeat(2, 0).repeat(2, 1),
    "gsa": TRUTH + 0.05 * RNG.normal(size=TRUTH.shape).astype(np.float32),
    "mhf_net": TRUTH + 0.01 * RNG.normal(size=TRUTH.shape).astype(np.float32),
}
CONVENTIONS = {"PSNR": ("global", "by definition"), "SAM": ("mean angle", "Yuhas, 1992"), "QNR": ("unused", "nobody")}


def row(system, family, psnr, parameters=None):
    metrics = {"SAM": 100 / psnr, "PSNR": psnr}
    return Row("lake", "hs_ms", system, family, {"ratio": 2}, metrics, parameters, 0.5, 100.0, "x.tif", None)


ROWS = [row("cubic", "classical", 25.0), row("gsa", "classical", 30.0), row("mhf_net", "unrolled", 40.0, 1234567)]


def section(**changes):
    content = {
        "title": "Lake",
        "text": "A lake.",
        "facts": {"Sensor": "AVIRIS", "Ratio": 2},
        "inputs": {"lr": LR, "guide": TRUTH[..., :1]},
        "rgb": (3, 2, 1),
        "products": PRODUCTS,
        "reference": TRUTH,
        "wavelengths": np.linspace(400, 800, 5),
        "rows": ROWS,
        "unit": "reflectance",
        "pixels": [(2, 3)],
    }
    return SceneSection(**(content | changes))


class Page(HTMLParser):
    """What a browser would make of the file, as far as the tests ask."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.words, self.stack = text, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def picture(self, alt):
        source = next(attrs["src"] for attrs in self.all("img") if attrs["alt"].startswith(alt))
        return Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))


def written(path, *sections):
    write_page(path, "Fusion", "First.\n\nSecond.", sections, CONVENTIONS, {"jfusion": "0.1"})
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def render(tmp_path):
    return partial(written, tmp_path / "page.html")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return written(tmp_path_factory.mktemp("plain") / "page.html", section())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    srf = np.full((1, 5), 0.2)
    return written(
        tmp_path_factory.mktemp("full") / "page.html",
        section(
            stages=[StageView(f"stage {k}", TRUTH * k / 3, {"lr": 0.1**k, "guide": 0.2**k}) for k in (1, 2, 3)],
            stages_system="mhf_net",
            degradation=Degradation(
                "What dip found",
                {"true": np.pad(psf, 1), "estimated": psf},
                {"true": srf + 0.01, "estimated": srf},
                np.linspace(400, 800, 5),
            ),
            downloads=[("product", "lake one/mhf_net.tif")],
            pixels=None,
        ),
        section(title="River", reference=None, wavelengths=None),
    )


def test_nothing_comes_from_elsewhere(full):
    assert not full.all("script")
    assert not full.all("link")
    assert not full.all("iframe")
    addresses = [attrs[key] for _, attrs in full.tags for key in ("src", "srcset", "data", "action") if key in attrs]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert all(url.startswith(("data:", "#")) for url in re.findall(r"url\(([^)]*)\)", full.text))
    assert "http:" not in full.text
    assert "https:" not in full.text
    assert "@import" not in full.text


def test_links_lead_to_the_page_or_to_its_files(full):
    ids = {attrs["id"] for _, attrs in full.tags if "id" in attrs}
    for link in full.all("a"):
        address = link["href"]
        assert address[1:] in ids if address.startswith("#") else address == "lake%20one/mhf_net.tif"


def test_ids_are_unique(full):
    ids = [attrs["id"] for _, attrs in full.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_every_picture_is_described(full):
    assert all(attrs.get("alt") for attrs in full.all("img"))
    assert all(attrs.get("aria-label") for attrs in full.all("svg"))
    for name in PRODUCTS:
        alts = [attrs["alt"] for attrs in full.all("img") if attrs["alt"].startswith(f"{name},")]
        assert len(set(alts)) == 4


def test_table_headers_have_a_scope(full):
    assert {attrs.get("scope") for attrs in full.all("th")} == {"col", "row"}


def test_products_share_the_references_stretch(plain):
    bands = [3, 2, 1]
    stretch = Stretch.of(TRUTH[..., bands])
    for name, image in PRODUCTS.items():
        shown = np.asarray(plain.picture(f"{name}, the whole"))
        np.testing.assert_array_equal(shown, stretch(image[..., bands]))


def test_error_maps_share_one_scale_which_the_baseline_does_not_set(plain, render):
    first = plain
    worse = PRODUCTS | {"cubic": 100 * PRODUCTS["cubic"]}
    second = render(section(products=worse))
    for kind in ("RMSE", "SAM"):
        assert first.picture(f"gsa, {kind}").tobytes() == second.picture(f"gsa, {kind}").tobytes()
    assert first.picture("cubic, RMSE").tobytes() != second.picture("cubic, RMSE").tobytes()
    assert len(re.findall(r'class="bar"', first.text)) == 2


def test_a_pixels_error_is_drawn_where_it_is(render):
    product = TRUTH.copy()
    product[5, 7] += 0.3
    page = render(section(products={"gsa": product}, rows=[ROWS[1]]))
    levels = np.asarray(page.picture("gsa, RMSE"))
    assert np.argwhere(levels > 1).tolist() == [[5, 7]]


def test_without_truth_there_are_no_error_maps_but_all_else(render):
    page = render(section(reference=None))
    assert not [attrs for attrs in page.all("img") if "of each pixel" in attrs["alt"]]
    assert not re.search(r'class="bar"', page.text)
    assert {attrs["alt"].split(",")[0] for attrs in page.all("img")} >= set(PRODUCTS)
    assert "coarse input" in page.text
    assert ">reference<" not in page.text


@pytest.mark.parametrize("reference", [None, TRUTH])
def test_half_widths_are_a_map_with_its_scale(render, reference):
    half = np.zeros(TRUTH.shape[:2])
    half[5, 7] = 0.4
    half[0, 0] = np.nan
    page = render(section(reference=reference, half_widths={"gsa": half}, level=0.8))
    name = "± of the 80 % interval"
    levels = np.asarray(page.picture(f"gsa, {name}"))
    assert np.argwhere(levels > 1).tolist() == [[5, 7]]
    assert np.argwhere(levels == 0).tolist() == [[0, 0]]
    assert not [attrs for attrs in page.all("img") if attrs["alt"].startswith(f"cubic, {name}")]
    assert len(re.findall(r'class="bar"', page.text)) == (1 if reference is None else 3)
    assert ("the truth" in page.words) == (reference is not None)


def test_plots_of_a_section_are_drawn(render):
    plot = lines("lake-psnr", "PSNR along the fit", None, {"fit": np.arange(3.0)}, xlabel="step", ylabel="dB")
    assert "PSNR along the fit" in render(section(plots=[plot])).text


def test_best_and_second_are_marked_and_directions_told(plain):
    text = re.sub(r"\s+", " ", plain.text)
    assert "<strong>40.00</strong>" in text
    assert "<u>30.00</u>" in text
    assert "<strong>2.50</strong>" in text
    assert re.search(r"PSNR <span[^>]*>↑", text)
    assert re.search(r"SAM <span[^>]*>↓", text)
    assert "1,234,567" in text


def test_the_baseline_is_marked(plain):
    assert [attrs.get("class") for attrs in plain.all("tr")].count("baseline") == 1
    assert re.search(r"cubic\s*<span class=\"tag\">baseline", plain.text)


def test_summary_says_who_is_ahead(plain):
    assert "Ahead: mhf_net on Lake; 2 of 2 results beat the trivial baseline." in plain.text
    assert "3 systems of 2 families on Lake." in plain.text


def test_one_system_alone_is_not_ahead_of_others(render):
    page = render(section(products={"gsa": PRODUCTS["gsa"]}, rows=[ROWS[1]]))
    assert "gsa on Lake." in page.words
    for words in ("Ahead", "second best", "baseline."):
        assert not [text for text in page.words if words in text]


def test_the_headline_is_not_the_baseline(render):
    page = render(section(rows=[row("cubic", "classical", 50.0), ROWS[1]]))
    assert re.search(r"<b>gsa</b><br>cubic: 50.00 dB", page.text)


def test_without_truth_the_baseline_is_not_ahead(render):
    rows = [row("cubic", "classical", 50.0), *ROWS[1:]]
    assert "Ahead: cubic" in render(section(rows=rows)).text
    assert "Ahead: mhf_net" in render(section(rows=rows, reference=None)).text


def test_responses_are_called_after_where_they_come_from(full, render):
    assert {"PSF, true", "PSF, estimated", "In the SRF plot the true responses are dashed."} <= {
        part for words in full.words for part in (words.strip(), words[words.find("In the SRF") :])
    }
    page = render(section(degradation=Degradation("Responses", {"from the tables": np.ones((3, 3))})))
    assert "PSF, from the tables" in page.words
    assert not [words for words in page.words if "dashed" in words]


def test_pixels_without_data_are_grey_and_have_no_spectrum(render):
    gap = np.zeros(TRUTH.shape[:2], bool)
    gap[:, :8] = True
    products = {name: np.where(gap[..., None], np.nan, image) for name, image in PRODUCTS.items()}
    lr = np.where(gap[::2, ::2, None], np.nan, LR)
    page = render(section(products=products, inputs={"lr": lr, "guide": TRUTH[..., :1]}, reference=None, pixels=None))
    assert (np.asarray(page.picture("gsa, the whole"))[gap] == 128).all()
    columns = [int(column) for column in re.findall(r"row \d+, column (\d+)", page.text)]
    assert columns
    assert min(columns) >= 8
    left = re.search(r"left:([\d.]+)%", page.text)
    assert left is not None
    assert float(left.group(1)) >= 50


def test_a_metric_without_a_value_is_explained(render):
    rows = [dataclasses.replace(one, metrics={"HQNR": np.nan, "QNR": 0.5}) for one in ROWS]
    assert "Without a value: HQNR, since no whole block" in render(section(rows=rows, reference=None)).text


def test_conventions_are_those_of_the_metrics_on_the_page(full):
    assert "mean angle" in full.text
    assert "Yuhas, 1992" in full.text
    assert "unused" not in full.text


def test_what_comes_from_files_is_escaped(render):
    evil = '<script>alert("x")</script> & \'"'
    rows = [Row(evil, "hs_ms", evil, evil, {evil: evil}, {"PSNR": 1.0, evil: 2.0}, None, 1.0, None, evil, evil, evil)]
    page = render(
        section(
            title=evil,
            text=evil,
            facts={evil: evil},
            inputs={evil: LR},
            products={evil: TRUTH},
            rows=rows,
            stages=[StageView(evil, TRUTH, {evil: 0.1})],
            stages_system=evil,
            degradation=Degradation(evil, {evil: np.ones((3, 3))}, {evil: np.ones((1, 5))}),
            downloads=[(evil, "javascript:alert(1)")],
            unit=evil,
        )
    )
    assert not page.all("script")
    assert "<script" not in page.text
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "javascript:" not in page.text
    assert f"{evil}, the whole scene in colour" in [attrs["alt"] for attrs in page.all("img")]


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("truth", [True, False])
def test_images_without_content_are_shown_all_the_same(render, value, truth):
    flat = np.full((8, 8, 3), value, np.float32)
    page = render(
        section(
            inputs={"lr": flat[::2, ::2], "guide": flat[..., :1]},
            rgb=(2, 1, 0),
            products={"cubic": flat},
            reference=flat if truth else None,
            wavelengths=None,
            rows=[row("cubic", "classical", float("nan"))],
            stages=[StageView("stage 1", flat, {"lr": value})],
        )
    )
    assert page.picture("cubic, the whole").size == (8, 8)


def test_a_section_needs_no_rows(render):
    page = render(section(rows=[]))
    assert not page.all("table")
    assert page.picture("gsa, RMSE").size == (16, 12)


def test_large_scenes_are_shown_smaller_and_their_detail_whole(render):
    big = np.zeros((4, 1400, 3), np.float32)
    big[:, 700:] = 1
    page = render(
        section(inputs={"lr": big[::2, ::2]}, rgb=(0, 1, 2), products={"gsa": big}, reference=None, wavelengths=None)
    )
    assert page.picture("gsa, the whole").size[0] <= 640
    assert page.picture("gsa, a detail").size[0] >= 4


def test_same_content_gives_the_same_page(plain, render):
    assert render(section()).text == plain.text


def test_a_failure_leaves_the_old_page_and_nothing_else(tmp_path, render, monkeypatch):
    (tmp_path / "page.html").write_text("old")

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("jfusion.files.os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        render(section(title="New"))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_a_missing_folder_is_told_before_the_work(tmp_path):
    with pytest.raises(InputError, match="folder"):
        write_page(tmp_path / "no" / "page.html", "t", "", [section()], {}, {})


def test_a_page_needs_a_section(tmp_path):
    with pytest.raises(InputError, match="section"):
        write_page(tmp_path / "page.html", "t", "", [], {}, {})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"products": {}}, "one product"),
        ({"products": {"gsa": TRUTH[..., :2]}}, "one shape"),
        ({"inputs": {"guide": TRUTH[..., :1]}}, "bands of the products"),
        ({"rgb": (0, 1, 5)}, "band indices"),
        ({"wavelengths": np.arange(4.0)}, "wavelengths"),
        ({"window": (0, 13, 0, 4)}, "window"),
        ({"pixels": [(0, 16)]}, "pixels"),
        ({"half_widths": {"gsa": TRUTH[..., 0].T}}, "half widths"),
        ({"half_widths": {"fuse": TRUTH[..., 0]}}, "half widths"),
    ],
)
def test_content_that_does_not_fit_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        section(**changes)


def test_a_guide_with_as_many_bands_is_stretched_by_itself() -> None:
    """The numbers of `lr` are the products' and drawn alike; those of a guide may be of another scale."""
    painter = figures.Painter(section())
    dim, bright = (painter.input(image, "guide", False).src for image in (TRUTH / 2, TRUTH))
    assert dim == bright
    dim, bright = (painter.input(image, "lr", True).src for image in (TRUTH / 2, TRUTH))
    assert dim != bright
