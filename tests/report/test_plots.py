"""Plots: inline SVG that follows the page's theme."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from jfusion.report.plots import lines, spread, with_gaps

X = np.array([400.0, 410, 420, 430, 900, 910, 920])


def plot(name="a", **kwargs):
    curves = {"true": np.linspace(0, 1, 7), "gsa": np.linspace(1, 0, 7)}
    settings = {"truth": "true", "xlabel": "wavelength (nm)", "ylabel": "reflectance"} | kwargs
    return lines(name, "A <pixel> & $more", settings.pop("x", X), settings.pop("curves", curves), **settings)


def test_same_content_gives_the_same_bytes():
    assert plot() == plot()


def test_it_is_one_labelled_element_without_addresses():
    svg = plot()
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "A <pixel> & $more" in root.get("aria-label")
    assert "http" not in svg
    texts = {"".join(text.itertext()).strip() for text in root.iter("text")}
    assert {"true", "gsa", "A <pixel> & $more", "wavelength (nm)", "reflectance"} <= texts


def test_ink_follows_the_theme():
    svg = plot()
    assert "currentColor" in svg
    assert "var(--series-0)" in svg
    assert not re.search(r"#0[0-9a-f]{5}\b", svg)


def test_two_plots_share_no_ids():
    first, second = ({*re.findall(r'\bid="([^"]+)"', plot(name))} for name in ("scene-1-a", "scene-2-a"))
    assert first
    assert not first & second
    for name in ("scene-1-a",):
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', plot(name)))
        assert used <= first


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0, -1.0])
@pytest.mark.parametrize("log", [False, True])
def test_empty_and_constant_curves_are_drawn(value, log):
    svg = plot(curves={"true": np.full(7, value), "gsa": np.full(7, value)}, log=log)
    assert svg.startswith("<svg")


def test_curves_break_where_bands_were_left_out():
    bands = np.r_[400:500:10, 900:1000:10].astype(float)
    x, y = with_gaps(bands, np.arange(20.0))
    assert np.flatnonzero(np.isnan(y)).tolist() == [10]
    np.testing.assert_array_equal(np.delete(x, 10), bands)
    np.testing.assert_array_equal(np.delete(y, 10), np.arange(20))


def test_the_bands_of_a_multispectral_sensor_are_joined():
    _, y = with_gaps(np.array([480, 560, 655, 865, 1610, 2200, 11000.0]), np.arange(7.0))
    assert np.isfinite(y).all()


def test_curves_run_in_order_of_their_wavelengths():
    x, y = with_gaps(np.array([3.0, 1.0, 2.0]), np.array([30.0, 10.0, 20.0]))
    assert x.tolist() == [1, 2, 3]
    assert y.tolist() == [10, 20, 30]


@pytest.mark.parametrize("positions", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 1.0], [0.9, 0.1, 0.89, 0.91], [0.5] * 40])
def test_labels_are_spread_in_their_order(positions):
    moved = spread(positions, 0.1, 0.0, 1.0)
    assert min(moved) >= -1e-12
    assert max(moved) <= 1 + 1e-12
    ordered = np.array(moved)[np.argsort(positions, kind="stable")]
    gap = min(0.1, 1 / max(len(positions) - 1, 1))
    assert (np.diff(ordered) >= gap - 1e-9).all()


def test_labels_that_are_apart_stay():
    assert spread([0.8, 0.2], 0.1, 0, 1) == pytest.approx([0.8, 0.2])


def test_crowded_labels_are_centred_on_their_curves():
    assert spread([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])
