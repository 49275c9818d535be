"""What a user should hear before a run: what the models are shown beside the pictures, and what they lack."""

from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.encoding import notes_on_prompts
from headwater.examples import Examples, label_of_group, places


def notes_on_conditions(model: Denoiser, train: Examples, queries: Examples) -> list[str]:
    """Notes on what the model is shown beside the pictures, where that is a guess or only a part."""
    notes = notes_on_prompts(model.text, train.prompts, "training images")
    notes += notes_on_prompts(model.text, queries.prompts, "queries")
    numbers = label_of_group(train)
    if model.classes is None or not numbers or (train.labels != places(train.groups or ())).any():
        return notes
    classes = sorted(((label, group) for group, label in numbers.items() if label >= 0))
    listed = ", ".join(f"{label} {group}" for label, group in classes[:4]) + (
        " …" if len(classes) > 4 else ""
    )
    return [
        *notes,
        f"The {len(classes)} classes of the training images are numbered in the order of their names "
        f"({listed}); the model has {model.classes}, and may number them otherwise. If so, give its numbers "
        "as `label` in a metadata.csv, or as `labels` in an .npz.",
    ]


def note_on_checkpoints(name: str, model: Denoiser, count: int) -> list[str]:
    """A note on a model with fewer open checkpoints than a method asks for."""
    available = len(model.checkpoints)
    if available >= count:
        return []
    instead = "those are used" if available else "the final model alone is used"
    return [
        f"{name} has {available or 'no'} checkpoints of its own, in `checkpoints/step-*` in it or beside it: "
        f"{instead}."
    ]
