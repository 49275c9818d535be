"""What a stage found, an item at a time: printed, written down at once, and never lost to the failure of
another item."""

import json
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from environment import environment

CARD = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "power.limit",
    "temperature.gpu",
)


@dataclass(frozen=True)
class Stage:
    """Where a stage writes, on what it runs, at which size, and when it must be done."""

    out: Path
    device: str = "cuda"
    size: str = "real"
    minutes: float = 9.0
    data: Path | None = None
    options: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def tiny(self) -> bool:
        return self.size == "tiny"

    def seconds_left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)


class Report:
    """The JSON of one stage. Items that are there already are not measured again; failed ones are."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.path = stage, stage.out / f"{name}.json"
        before = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.items: dict[str, Any] = before.get("items", {})
        self.head = {"stage": name, "size": stage.size, "device": stage.device, "environment": machine(stage)}
        if "environment" in before:
            self.head["environment"] = before["environment"]
        stage.out.mkdir(parents=True, exist_ok=True)

    def item(self, name: str, measure: Callable[[], dict[str, Any]], needs: float = 0.0) -> dict[str, Any]:
        """Measure an item and write it down; an exception, or too little time, is written down in its
        place."""
        known = self.items.get(name)
        if known is not None and not known.keys() & {"error", "skipped"}:
            return known
        start = time.perf_counter()
        if self.stage.seconds_left() < needs:
            row: dict[str, Any] = {
                "skipped": f"{self.stage.seconds_left():.0f} s were left; it takes about {needs:.0f}"
            }
        else:
            try:
                row = measure()
            except Exception as error:
                lines = traceback.format_exc().splitlines()
                row = {
                    "error": f"{type(error).__name__}: {error}"[:600],
                    "where": [line.strip() for line in lines[-8:-1]],
                }
        row = row | {"item_s": round(time.perf_counter() - start, 2)}
        self.items[name] = row
        self.save()
        print(f"{self.path.stem:8}{name:44}{shown(row)}", flush=True)
        release(self.stage)
        return row

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.head | {"items": self.items}, indent=1))
        part.replace(self.path)

    @property
    def failed(self) -> list[str]:
        return [name for name, row in self.items.items() if "error" in row or row.get("good") is False]


def shown(row: dict[str, Any]) -> str:
    """An item in one line."""
    if "error" in row:
        return f"FAILED {row['error']}  at {row['where'][-2:]}"[:500]
    return "  ".join(f"{name} {value}" for name, value in row.items() if not isinstance(value, list | dict))[
        :400
    ]


def release(stage: Stage) -> None:
    """Give the card's memory back between items."""
    if stage.cuda:
        import gc

        gc.collect()
        torch.cuda.empty_cache()


def machine(stage: Stage) -> dict[str, Any]:
    """The machine, and the card as it is found: its settings are only read."""
    known = environment()
    if not stage.cuda:
        return known
    words = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader"]
    try:
        line = subprocess.run(
            words, capture_output=True, text=True, timeout=20, check=True
        ).stdout.splitlines()[0]
        card = dict(zip(CARD, (word.strip() for word in line.split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        card = {"error": str(error)[:200]}
    versions = {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "card": torch.cuda.get_device_name(),
    }
    return known | {"gpu": card | versions}


def synchronised(stage: Stage) -> None:
    if stage.cuda:
        torch.cuda.synchronize()


def seconds(stage: Stage, work: Callable[[], Any], repeats: int = 3, warmup: int = 1) -> float:
    """The median of some runs, after some that do not count."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        synchronised(stage)
        start = time.perf_counter()
        work()
        synchronised(stage)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def peak_gib(stage: Stage) -> float | None:
    """The most memory held on the card since it was last reset, and reset it."""
    if not stage.cuda:
        return None
    most = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return round(most, 3)
