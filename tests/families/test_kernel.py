"""The kernel's damping: its unit, and the values that are refused."""

import numpy as np
import pytest

from headwater import seeds
from headwater.curvature.gram import Gram
from headwater.errors import OptionError
from headwater.families.kernel import Kernel, KernelIndex


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_the_dimensionless_damping_counts_in_mean_squared_feature_norms(shape):
    gram = Gram(seeds.normal(shape, 0, "features"))
    index = KernelIndex(None, gram)
    unit = np.mean([row @ row for row in gram.phi.astype(np.float64)])
    assert Kernel(damping=0.3).resolved(index)["absolute_damping"] == pytest.approx(0.3 * unit)
    assert Kernel().resolved(index)["absolute_damping"] == pytest.approx(0.1 * unit)
    assert Kernel(absolute_damping=7).resolved(index) == {
        "k": shape[1],
        "damping": pytest.approx(7 / unit),
        "absolute_damping": 7.0,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"damping": -1},
        {"absolute_damping": -0.1},
        {"damping": float("nan")},
        {"damping": np.inf},
        {"damping": 1, "absolute_damping": 1},
    ],
)
def test_dampings_that_mean_nothing_are_refused(fields):
    with pytest.raises(OptionError, match="damping"):
        Kernel(**fields)
