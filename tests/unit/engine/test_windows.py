"""Windows hold every cell that is wanted, and what is computed in them is right."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from geo_retina.engine.windows import windows_around

REACH = 3


@pytest.mark.parametrize(("height", "width"), [(20, 300), (90, 100), (33, 33)])
def test_windows_cover_what_is_wanted_and_give_what_the_whole_level_does(height, width):
    generator = np.random.default_rng(3)
    wanted = generator.random((height, width)) < 0.003
    wanted[0, 0] = wanted[-1, -1] = wanted[5, 7] = wanted[6, 6] = True
    level = generator.normal(size=(height, width))

    def blurred(cells, inside):
        for _ in range(REACH):
            cells = sliding_window_view(cells * inside, (3, 3), axis=(-2, -1)).mean(axis=(-2, -1))
            inside = inside[..., 1:-1, 1:-1]
        return cells * inside

    beyond = np.pad(np.ones_like(level), REACH)
    whole = blurred(np.pad(level, REACH), beyond)
    out = np.full((height, width, 1, 1), np.nan)
    for some in windows_around(wanted, REACH):
        found = blurred(level[some.rows, some.cols], some.inside)
        some.put(found[..., None], out)
    assert not np.isnan(out[wanted]).any()
    seen = ~np.isnan(out[..., 0, 0])
    np.testing.assert_allclose(out[seen][:, 0, 0], whole[seen])


def test_none_are_needed_where_nothing_is_wanted_and_the_whole_level_where_much_is():
    wanted = np.zeros((40, 50), bool)
    assert windows_around(wanted, REACH) == []
    assert windows_around(wanted, None) == []
    wanted[3, 4] = True
    assert len(windows_around(wanted, REACH)) == 1
    assert windows_around(wanted, None) is None
    wanted[::4, ::4] = True
    assert windows_around(wanted, REACH) is None
    assert windows_around(~wanted, REACH) is None
