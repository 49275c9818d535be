"""On the bank that ships: methods that should predict retraining do, clear of chance, with nothing tuned."""

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
    found = []
    for each in (name, "random"):
        method, model = make(each, {}), None if each in ("random", "nda") else loading.load(bank.folder / "model")
        store = FeatureStore(tmp_path)
        found.append(against(bank, dense(method.score(method.fit(model, bank.train, store), bank.queries, store))))
    assert difference(found[0], found[1], validation).low > 0
