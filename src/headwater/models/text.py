"""Text encoders: prompts to a network's conditioning arguments, as in its pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from headwater.errors import ModelError
from headwater.models.folders import Pipeline, fingerprint, libraries, of_transformers

TEST, MARK = "a test of the words", "tokenizer {}"  # their tokens identify a tokenizer


@dataclass(frozen=True, eq=False)
class Prompts:
    """`encode(prompts)` gives the network's arguments by name; the fingerprint identifies the encoder."""

    encode: Callable[[list[str]], dict[str, Tensor]]
    fingerprint: str

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """One row per prompt, under the names of the network's arguments."""
        return self.encode(list(prompts))


def clip(pipeline: Pipeline, device: str) -> Prompts:
    """The last hidden states of a CLIP text model, prompts padded to full length (Stable Diffusion 1, 2)."""
    encoder: Any = of_transformers(pipeline.part("text_encoder"), "CLIPTextModel", device).requires_grad_(
        False
    )
    words = tokenizer(pipeline, "tokenizer", "CLIPTokenizer")

    def encode(prompts: list[str]) -> dict[str, Tensor]:
        tokens = words(
            prompts,
            padding="max_length",
            max_length=words.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = (
            tokens.attention_mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
        )
        return {"encoder_hidden_states": encoder(tokens.input_ids.to(device), attention_mask=mask)[0]}

    return Prompts(
        encode,
        fingerprint(encoder, None, MARK.format(words([TEST], truncation=True, max_length=4).input_ids)),
    )


def tokenizer(pipeline: Pipeline, part: str, name: str) -> Any:
    """The tokenizer in component `part` of the pipeline."""
    folder = pipeline.part(part)
    try:
        return getattr(libraries("transformers"), name).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"The tokenizer in {folder} could not be read ({' '.join(str(error).split())[:200]})."
        ) from error
