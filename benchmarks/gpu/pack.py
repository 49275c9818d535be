"""Everything that a machine without internet lacks, in one ignored folder: the package, the kit, wheels,
pictures.

    HEADWATER_DATA=FOLDER make gpu-pack        writes .gpu/; FOLDER holds cifar10_jpeg.npz (docs/data.md)

Prints what the folder and the tracked files weigh, and fails above what can be sent.
"""

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pictures

from headwater.data import open_examples
from headwater.disk.npz import write_examples
from headwater.retraining.recipe import first

ROOT = Path(__file__).parents[2]
WHEELS = ("diffusers", "importlib_metadata")  # what the machine does not have
LINUX = [f"manylinux{name}_x86_64" for name in ("_2_28", "_2_17", "2014")]
PACK_MIB, SENT_MIB = 28, 60
BANKS = ("digits",)  # of those that ship
START = """# Source this first, on the machine with the card, from this folder.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -e /tmp/site/diffusers ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \\
    --target /tmp/site "$here"/wheels/*.whl
fi
export PYTHONPATH=/tmp/site:$here/site PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
kit() { python3 "$here/kit/run.py" "$@"; }
"""


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--out", type=Path, default=ROOT / ".gpu")
    arguments.add_argument("--bank", type=Path, help="a folder `bank` that a stage goes on from, or scores")
    arguments.add_argument("--pixels", action="store_true", help="pictures as pixels, 12 MiB more")
    options = arguments.parse_args()
    out: Path = options.out
    for name in ("site", "kit", "bank"):
        shutil.rmtree(out / name, ignore_errors=True)
    package(out / "site")
    shutil.copytree(Path(__file__).parent, out / "kit", ignore=shutil.ignore_patterns("__pycache__", "*.md"))
    shutil.copy(Path(__file__).parents[1] / "environment.py", out / "kit")
    wheels(out / "wheels")
    data(out / "kit" / "data", pixels=options.pixels)
    if options.bank is not None:
        shutil.copytree(options.bank, out / "bank", ignore=shutil.ignore_patterns("parts"))
    (out / "start.sh").write_text(START)
    return weighed(out)


def package(site: Path) -> None:
    """The package's source with the banks in BANKS, less their checkpoints, and enough to tell its version
    by."""
    source = ROOT / "src" / "headwater"
    unpacked = {path.name for path in (source / "banks").iterdir()} - set(BANKS)
    shutil.copytree(
        source, site / "headwater", ignore=shutil.ignore_patterns("__pycache__", "step-*", *unpacked)
    )
    about = site / f"headwater-{version('headwater')}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: headwater\nVersion: {version('headwater')}\n"
    )


def wheels(folder: Path) -> None:
    """Wheels for Python 3.12 on x86-64, in the versions that are installed here."""
    missing = [name for name in WHEELS if not list(folder.glob(f"{name}-{version(name)}-*.whl"))]
    if not missing:
        return
    shutil.rmtree(folder, ignore_errors=True)
    platforms = [word for name in LINUX for word in ("--platform", name)]
    words = [
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        "3.12",
        "--implementation",
        "cp",
    ]
    names = [f"{name}=={version(name)}" for name in WHEELS]
    subprocess.run(
        [sys.executable, "-m", "pip", *words, *platforms, "--dest", str(folder), *names], check=True
    )


def data(folder: Path, *, pixels: bool) -> None:
    """CIFAR-2: the 5,000 images that models are trained on, and 100 held-out ones."""
    folder.mkdir(parents=True, exist_ok=True)
    write = write_examples if pixels else pictures.pack
    write(folder / "train.npz", open_examples("cifar2"))
    write(folder / "val.npz", first(open_examples("cifar2:val"), 100))


def weighed(out: Path) -> int:
    """Print the sizes; 1 where they are too large."""
    pack = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    tree = sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file()) / 2**20
    print(f"{out.name}: {pack:.1f} MiB, at most {PACK_MIB}")
    print(f"with {tree:.1f} MiB of tracked files: {pack + tree:.1f} MiB, at most {SENT_MIB}")
    if pack > PACK_MIB or pack + tree > SENT_MIB:
        print("Too large to be sent. Leave out pictures or a bank.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
