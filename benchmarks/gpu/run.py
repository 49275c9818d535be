"""Everything that waits for a GPU: run it where one is at hand, on a machine without internet. README.md has
the commands.

    python benchmarks/gpu/run.py STAGE --out DIR [--minutes 9] [--device cuda] [--size tiny|real]

Stages: `check` (the card computes what the processor does), `speed` (what a GPU makes of it, and where its
time goes), `bank` (models retrained on halves of CIFAR-2), `quality` (every method against that bank). A
stage goes on from what DIR holds."""

import argparse
import importlib
import os
import sys
from pathlib import Path

STAGES = ("check", "speed", "bank", "quality")


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("stage", choices=STAGES)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--minutes", type=float, default=9.0)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--size", choices=("tiny", "real"), default="real")
    arguments.add_argument(
        "--data", type=Path, help="folder with train.npz and val.npz (default: data beside the kit)"
    )
    arguments.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="what a stage may be told (README.md)"
    )
    parsed = arguments.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    kit = Path(__file__).parent
    sys.path[:0] = [
        str(kit),
        str(kit.parent),
    ]  # environment.py is beside the kit, or in it where it was packed
    from report import Stage

    options = dict(word.split("=", 1) for word in parsed.set)
    data = parsed.data or Path(__file__).parent / "data"
    stage = Stage(parsed.out, parsed.device, parsed.size, parsed.minutes, data, options)
    report = importlib.import_module(parsed.stage).run(stage)
    if report.failed:
        print(f"{len(report.failed)} failed: {', '.join(report.failed)}", flush=True)
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
