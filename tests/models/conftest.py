"""Pipelines that the tests of several families open."""

import pytest
import torch

import tiny_pipelines


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """One tiny pipeline of each family, as diffusers saves it."""
    root = tmp_path_factory.mktemp("pipelines")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tiny_pipelines.stable(root / "words").save_pretrained(root / "stable")
        tiny_pipelines.latent().save_pretrained(root / "latent")
        tiny_pipelines.dit().save_pretrained(root / "dit")
        tiny_pipelines.sd3(root / "words").save_pretrained(root / "sd3")
    return root
