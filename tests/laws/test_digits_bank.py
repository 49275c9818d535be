"""On the bundled bank: methods that should predict retraining do, clearly above chance, with nothing
tuned."""

import numpy as np
import pytest

from headwater.bank import open_bank
from headwater.disk.store import FeatureStore
from headwater.evaluate.lds import against, difference
from headwater.methods import make
from headwater.models import loading
from headwater.scores import dense


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trak", "d-trak", "ek-fac", "nda"])
def test_the_method_beats_random_on_held_out_digits(name, tmp_path):
    bank = open_bank("digits")
    validation = np.array(bank.queries.split) == "val"
    agreements = []
    for tested in (name, "random"):
        method, model = (
            make(tested, {}),
            None if tested in ("random", "nda") else loading.load(bank.folder / "model"),
        )
        store = FeatureStore(tmp_path)
        agreements.append(
            against(bank, dense(method.score(method.fit(model, bank.train, store), bank.queries, store)))
        )
    assert difference(agreements[0], agreements[1], validation).low > 0
