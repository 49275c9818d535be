"""Credit as JSON-LD 1.1: a schema.org Dataset about pictures, with PROV-O for its origin. No torch.

The document defines every term itself, so no network is needed to read it. Terms that neither vocabulary has
are named in `urn:x-headwater:credit:`, which is a name and no address. Nothing says `isBasedOn` or
`wasDerivedFrom`: a share is an estimate, and claims neither.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headwater.credit.shares import Share
from headwater.pages.credit.run import Credited, QueryShares
from headwater.run import Run

SCHEMA = ("Dataset", "ImageObject", "PropertyValue", "SoftwareApplication", "name", "description")
SCHEMA += ("identifier", "measurementTechnique", "softwareVersion")
PROV = ("Activity", "Entity", "SoftwareAgent", "wasGeneratedBy", "wasAssociatedWith")
TERMS = (
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
NUMBERS = {name: "double" for name in Share._fields if name != "group"}
NUMBERS |= {"images": "integer", "count": "integer"}
CONTEXT: dict[str, Any] = {
    "@version": 1.1,
    "schema": "https://schema.org/",
    "prov": "http://www.w3.org/ns/prov#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "headwater": "urn:x-headwater:credit:",
    **{name: f"schema:{name}" for name in SCHEMA},
    **{name: f"prov:{name}" for name in PROV},
    **{name: f"headwater:{name}" for name in TERMS},
    **{name: {"@id": f"headwater:{name}", "@type": f"xsd:{kind}"} for name, kind in NUMBERS.items()},
    "about": {"@id": "schema:about", "@container": "@set"},
    "value": {"@id": "schema:value", "@container": "@set"},
    "used": {"@id": "prov:used", "@container": "@set"},
    "startedAtTime": {"@id": "prov:startedAtTime", "@type": "xsd:dateTime"},
    "fields": {"@id": "headwater:fields", "@type": "@json"},
    "contributions": {"@id": "headwater:contribution", "@container": "@set"},
    "also": {"@id": "headwater:also", "@container": "@set"},
}
DESCRIPTION = (
    "A share is the part of all score above 0 that falls on one group's training images: an estimate by this "
    "method, and no legal finding. It proves no copying, names no owner and sets no price. A share from "
    "even_low to even_high is what as many training images drawn at random would get with these scores; one "
    "below even_high is no evidence of a contribution."
)
LIKENESS = " This method measures likeness: its shares are of all likeness, and say nothing of influence."


def jsonld(credited: Credited, rows: QueryShares) -> Iterator[str]:
    """The document: its header, then a line for each picture with its groups, the largest share first."""
    head = _text({"@context": CONTEXT, **_dataset(credited)}, indent=1)
    yield head.removesuffix("\n}") + ',\n "about": ['
    for place, (query, shares) in enumerate(rows):
        yield ("," if place else "") + "\n  " + _text(_picture(credited, query, shares))
    yield "\n ]\n}\n"


def _dataset(credited: Credited) -> dict[str, Any]:
    info = credited.run.info
    return {
        "@type": ["Dataset", "Entity"],
        "name": f"Credit by {credited.column}",
        "description": DESCRIPTION + ("" if credited.run.signed else LIKENESS),
        "groupedBy": credited.column,
        "measurementTechnique": info.get("title") or info.get("method"),
        "wasGeneratedBy": _known(_activity(credited)),
    }


def _activity(credited: Credited) -> dict[str, Any]:
    """The attribution, and the model and the images that it used."""
    info = credited.run.info
    agent = ["SoftwareAgent", "SoftwareApplication"]
    return {
        "@type": "Activity",
        "method": info.get("method"),
        "name": info.get("title"),
        "fields": json.loads(json.dumps(info.get("fields")), parse_constant=lambda _: None),  # no NaN
        "seed": info.get("seed"),
        "startedAtTime": info.get("started"),
        "wasAssociatedWith": {"@type": agent, "name": "headwater", "softwareVersion": info.get("headwater")},
        "used": _used(credited.run),
    }


def _used(run: Run) -> list[dict[str, Any]]:
    return [
        *(_model(model.get("fingerprint")) for model in run.info.get("models") or []),
        _images("TrainingSet", run.info.get("train"), len(run.scores.train_ids)),
        _images("Queries", run.info.get("query"), len(run.scores.query_ids)),
    ]


def _model(fingerprint: str | None) -> dict[str, Any]:
    return _known({"@type": ["Entity", "Model"], "fingerprint": fingerprint})


def _images(kind: str, record: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
    fingerprint = (record or {}).get("fingerprint")
    return _known({"@type": ["Entity", "Dataset", kind], "fingerprint": fingerprint, "count": count})


def _picture(credited: Credited, query: int, shares: Sequence[Share]) -> dict[str, Any]:
    queries = credited.run.queries
    return _known(
        {
            "@type": "ImageObject",
            "identifier": credited.run.scores.query_ids[query],
            "contentHash": queries.hashes[query],
            "split": queries.split[query] if queries.split else None,
            "contributions": [_contribution(credited, share) for share in shares],
        }
    )


def _contribution(credited: Credited, share: Share) -> dict[str, Any]:
    contribution, second = {"@type": "Contribution", **_known(share.as_json())}, credited.second
    if second is not None:
        names = list(second.names[share.group])
        contribution["also"] = [{"@type": "PropertyValue", "name": second.column, "value": names}]
    return contribution


def _known(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without empty values: to JSON-LD, null says nothing."""
    return {name: value for name, value in record.items() if value is not None}


def _text(record: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps(record, indent=indent, ensure_ascii=False, allow_nan=False)
