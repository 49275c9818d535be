"""Credit as JSON-LD 1.1: a schema.org Dataset about pictures, with PROV-O for what made it. No torch, and no network to read it.

Every term is defined in the document itself. What neither vocabulary has is named in `urn:x-headwater:credit:`, which is a name and
no address. Nothing says `isBasedOn` or `wasDerivedFrom`: a share estimates, and claims neither.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from headwater.credit.shares import Share
from headwater.pages.credit.run import Credited, Told
from headwater.pages.credit.table import records

SCHEMA = ("Dataset", "ImageObject", "PropertyValue", "SoftwareApplication", "name", "description", "identifier")
SCHEMA += ("measurementTechnique", "softwareVersion")
PROV = ("Activity", "Entity", "SoftwareAgent", "wasGeneratedBy", "wasAssociatedWith")
OWN = (
    "Contribution",
    "Model",
    "TrainingSet",
    "Queries",
    "contentHash",
    "fingerprint",
    "groupedBy",
    "method",
    "seed",
    "split",
    "group",
)
NUMBERS = {name: "integer" if name == "images" else "double" for name in Share._fields if name != "group"} | {"count": "integer"}
CONTEXT: dict[str, Any] = {
    "@version": 1.1,
    "schema": "https://schema.org/",
    "prov": "http://www.w3.org/ns/prov#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "headwater": "urn:x-headwater:credit:",
    **{name: f"schema:{name}" for name in SCHEMA},
    **{name: f"prov:{name}" for name in PROV},
    **{name: f"headwater:{name}" for name in OWN},
    **{name: {"@id": f"headwater:{name}", "@type": f"xsd:{kind}"} for name, kind in NUMBERS.items()},
    "about": {"@id": "schema:about", "@container": "@set"},
    "value": {"@id": "schema:value", "@container": "@set"},
    "used": {"@id": "prov:used", "@container": "@set"},
    "startedAtTime": {"@id": "prov:startedAtTime", "@type": "xsd:dateTime"},
    "fields": {"@id": "headwater:fields", "@type": "@json"},
    "contributions": {"@id": "headwater:contribution", "@container": "@set"},
    "also": {"@id": "headwater:also", "@container": "@set"},
}
SAYS = (
    "A share is the part of all score above 0 that falls on one group's training images: an estimate by this method, and no legal "
    "finding. It proves no copying, names no owner and sets no price. A share from even_low to even_high is what as many training "
    "images drawn at random would get with these scores; one below even_high is no evidence of a contribution."
)
LIKENESS = " This method measures likeness: its shares are of all likeness, and say nothing of influence."


def lines(what: Credited, told: Told) -> Iterator[str]:
    """The document: what it is and what made it, then a picture a line with its groups, the largest share first."""
    head = _text({"@context": CONTEXT, **_dataset(what)}, indent=1)
    yield head.removesuffix("\n}") + ',\n "about": ['
    for place, (query, shares) in enumerate(told):
        yield ("," if place else "") + "\n  " + _text(_picture(what, query, shares))
    yield "\n ]\n}\n"


def _dataset(what: Credited) -> dict[str, Any]:
    info, run = what.run.info, what.run
    activity = {
        "@type": "Activity",
        "method": info.get("method"),
        "name": info.get("title"),
        "fields": json.loads(json.dumps(info.get("fields")), parse_constant=lambda _: None),  # no NaN
        "seed": info.get("seed"),
        "startedAtTime": info.get("started"),
        "wasAssociatedWith": {
            "@type": ["SoftwareAgent", "SoftwareApplication"],
            "name": "headwater",
            "softwareVersion": info.get("headwater"),
        },
        "used": [
            *(_known({"@type": ["Entity", "Model"], "fingerprint": each.get("fingerprint")}) for each in info.get("models") or []),
            _images("TrainingSet", info.get("train"), len(run.scores.train_ids)),
            _images("Queries", info.get("query"), len(run.scores.query_ids)),
        ],
    }
    return {
        "@type": ["Dataset", "Entity"],
        "name": f"Credit by {what.column}",
        "description": SAYS + ("" if run.signed else LIKENESS),
        "groupedBy": what.column,
        "measurementTechnique": info.get("title") or info.get("method"),
        "wasGeneratedBy": _known(activity),
    }


def _images(kind: str, told: dict[str, Any] | None, count: int) -> dict[str, Any]:
    return _known({"@type": ["Entity", "Dataset", kind], "fingerprint": (told or {}).get("fingerprint"), "count": count})


def _picture(what: Credited, query: int, shares: Sequence[Share]) -> dict[str, Any]:
    queries = what.run.queries
    return _known(
        {
            "@type": "ImageObject",
            "identifier": what.run.scores.query_ids[query],
            "contentHash": queries.hashes[query],
            "split": queries.split[query] if queries.split else None,
            "contributions": [_contribution(what, each) for each in records(shares)],
        }
    )


def _contribution(what: Credited, each: dict[str, Any]) -> dict[str, Any]:
    found = {"@type": "Contribution", **_known(each)}
    if what.also is not None:
        found["also"] = [{"@type": "PropertyValue", "name": what.also.column, "value": list(what.also.names[each["group"]])}]
    return found


def _known(record: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known: to JSON-LD, null says nothing."""
    return {name: value for name, value in record.items() if value is not None}


def _text(record: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(record, indent=indent, ensure_ascii=False, allow_nan=False)
