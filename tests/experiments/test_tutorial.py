"""The tutorial's network, small and for two steps."""

import numpy as np

from experiments.places import place
from experiments.tutorial import MINE, rows
from jfusion.data.simulate import Protocol
from jfusion.training.loop import train


def test_network_learns_and_is_read_turn_by_turn() -> None:
    protocol = Protocol(ratio=2, guide_sensor="landsat8_oli", guide_bands=("B2", "B3"), lr_snr_db=35, guide_snr_db=40)
    where = place("neon_sjer", protocol)
    before = np.asarray(where.test.target)
    result = train(MINE, where.learn, steps=2, patch=8, batch=2, sizes={"stages": 2, "width": 4}, turn=False)
    assert np.isfinite(result.losses).all()
    found = rows(result.network, where)
    assert [name for name, _, _ in found] == ["cubic", "fuse", "mine, turn 1", "mine, turn 2"]
    for _, product, told in found[2:]:
        assert product.shape == before.shape
        assert "lr 100" in told
        assert "misses" in told
