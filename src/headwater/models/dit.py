"""DiT: a class-conditional transformer over latents (Peebles & Xie 2023, arXiv:2212.09748)."""

from typing import Any

from torch import Tensor

from headwater.diffusion.denoiser import Condition
from headwater.models.architecture import Kind, height_and_width, input_channels


class DiT(Kind):
    """DiTTransformer2DModel: (x_t, t, class_labels). The second half of its channels may be variances."""

    part = "transformer"

    def inputs(
        self, x_t: Tensor, time: Tensor, condition: Condition
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (x_t,), {"timestep": time, **condition}

    def output(self, result: Any, x_t: Tensor) -> Tensor:
        return result.sample[:, : x_t.shape[1]]

    def shape(self, config: Any) -> tuple[int, int, int]:
        shown, predicted = config["in_channels"], config["out_channels"]
        mean = shown if predicted == 2 * shown else predicted  # without the variances
        return input_channels({"in_channels": shown, "out_channels": mean}), *height_and_width(config)

    def classes(self, config: Any) -> int | None:
        return config["num_embeds_ada_norm"]
