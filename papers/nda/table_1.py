"""Table 1: LDS (%) of methods that see only pictures, beside those that need the model's gradients

Gradients over 10 timesteps, k = 4096, dampings chosen on one half of a split's queries and reported on the
other; so are the rows that say so. NDA's sizes of patches, where none are given, are a rule made on
validation queries of the banks of digits and CIFAR-2.
"""

from headwater.families.embedding import name_of
from papers._shared.command import main
from papers._shared.exhibit import Exhibit
from papers._shared.line import REFERENCES, Line, influence, kernel
from papers._shared.session import Session

PAPER = "NDA is far above all other methods without a model, and above all gradients but D-TRAK's."

HERE = {
    "digits": (
        "It holds, and more: NDA is above all gradients of 10 timesteps, D-TRAK's by 37 points on validation "
        "and 23 on generation. Four noises, or none, add 7 to 8 and 5 to 6. But on pictures of 8 pixels "
        "patches are not what does it: without noise and at a timestep that is chosen, the posterior over "
        "whole training images has 68.3 and 37.5, more than any other row. Mirror images, which the model "
        "never saw, cost 3 and 5 points. Embeddings are worse than pixels, whole or in patches."
    ),
    "digits-mini": (
        "It holds: NDA is above all gradients, and above pixels on validation. Four noises are best of what "
        "chooses nothing (61.0 and 26.5)."
    ),
    "digits-mini-attention": (
        "As for the network without attention, from the same scores on validation: 45.5 here, with one seed "
        "a half, 55.4 there, with two."
    ),
    "cifar2-small": (
        "It holds on validation: NDA is above pixels by 7.9 [3.0, 12.4], as far above as D-TRAK, and with "
        "four noises above all others (18.8). On generation it is above all gradients (9.0 against 3.9 and "
        "less), but not surely above pixels (+3.2 [-5.0, 10.8]). Here patches are what does it: whole "
        "images, at a chosen timestep or not, have 5.8 to 9.8 on validation."
    ),
}

ONE = [(t,) for t in (100, 200, 300, 400, 500, 600, 700, 800, 900)]
NDA = {
    "": {},
    ", full resolution": {"alpha": 1.0},
    ", half resolution": {"alpha": 0.0},
    ", 4 noises": {"noises": 4},
    ", no noise": {"noises": 0},
    ", one noise for all queries": {"shared_noise": True},
    ", mirrored too": {"flips": True},
}


def lines(session: Session) -> list[Line]:
    pixels = [_pixels("dot"), _pixels("cosine")]
    embedders = [("clip", {"embedder": session.embedder})] if session.embedder else []
    return [
        *pixels,
        *(
            Line(row=f"`{method}` ({name_of(fields['embedder'])})", method=method, fields=fields)
            for method, fields in embedders
        ),
        Line(row="`patch-similarity`, size chosen", method="patch-similarity", swept={"patch": [3, 5, 7]}),
        *(_patches(session, fields) for _, fields in embedders),
        Line(row="`optimal-score`", method="optimal-score"),
        Line(row="`optimal-score`, one timestep, chosen", method="optimal-score", swept={"timesteps": ONE}),
        Line(row="`optimal-score`, no noise", method="optimal-score", fields={"noises": 0}),
        Line(
            row="`optimal-score`, no noise, one timestep, chosen",
            method="optimal-score",
            fields={"noises": 0},
            swept={"timesteps": ONE},
        ),
        *(Line(row=f"`nda`{words}", method="nda", fields=fields) for words, fields in NDA.items()),
        *(Line(row=f"`{name}`", method=name) for name in ("gradient", "gradient-cos", "tracin", "gas")),
        *(Line(row=f"`{name}`", **kernel(name, 10)) for name in ("trak", "d-trak")),
        Line(row="`ek-fac`", **influence("ek-fac", 10)),
        *session.references(),
    ]


def _pixels(similarity: str) -> Line:
    return Line(row=f"`pixel`, {similarity}", method="pixel", fields={"similarity": similarity})


def _patches(session: Session, fields: dict[str, str]) -> Line:
    """Embeddings of patches of half the side, half of that apart."""
    half = min(session.bank.train.shape[1:]) // 2
    halves = {"patch": half, "stride": half // 2}
    return Line(
        row=f"`patch-similarity` ({name_of(fields['embedder'])})",
        method="patch-similarity",
        fields=fields | halves,
    )


def base(of: Line) -> Line | None:
    """Each is compared with the cosine of pixels."""
    if of.method in REFERENCES:
        return None
    return _pixels("cosine")


if __name__ == "__main__":
    main(Exhibit("nda", "table_1"), doc=__doc__)
