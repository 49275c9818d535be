"""Text encoders: prompts to a network's conditioning arguments, as in its pipeline."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from headwater.diffusion.denoiser import Cut
from headwater.errors import ModelError
from headwater.models.folders import Pipeline, fingerprint, libraries, of_transformers

TEST, MARK = "a test of the words", "tokenizer {}"  # their tokens identify a tokenizer


class Reader(NamedTuple):
    """A tokenizer, the name of its encoder, and how many tokens that sees."""

    tokenizer: Any
    encoder: str
    tokens: int


@dataclass(frozen=True, eq=False)
class Prompts:
    """`encode(prompts)` gives the network's arguments by name; the fingerprint identifies the encoder, whose
    `readers` cut the prompts into tokens."""

    encode: Callable[[list[str]], dict[str, Tensor]]
    fingerprint: str
    readers: Sequence[Reader] = ()

    def embed(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """One row per prompt, under the names of the network's arguments."""
        return self.encode(list(prompts))

    def cuts(self, prompts: Sequence[str]) -> list[Cut]:
        """How many of the prompts are longer than each reader sees; of equals, the most."""
        distinct, counts = Counter(prompts), dict[tuple[str, int], int]()
        for words, encoder, tokens in self.readers:
            texts = words([*distinct], verbose=False).input_ids if distinct else []
            lengths = zip(texts, distinct.values(), strict=True)
            count = sum(number for text, number in lengths if len(text) > tokens)
            counts[encoder, tokens] = max(count, counts.get((encoder, tokens), 0))
        return [Cut(encoder, tokens, count) for (encoder, tokens), count in counts.items()]


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
        [Reader(words, "CLIP", words.model_max_length)],
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
