"""How much of each room the tests run through, in short: from coverage's JSON to a small one that is kept.

Run: make coverage. Writes benchmarks/results/coverage.json.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from environment import environment

RESULT = Path(__file__).parent / "results" / "coverage.json"


def main() -> None:
    """Lines and lines run, for each room and in all."""
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    lines: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, record in files.items():
        room = Path(name).relative_to("src/headwater").parts[0].removesuffix(".py")
        for row in (lines[room], lines["in all"]):
            row[0] += record["summary"]["covered_lines"]
            row[1] += record["summary"]["num_statements"]
    percent = {room: round(100 * run / total, 1) for room, (run, total) in sorted(lines.items()) if total}
    RESULT.write_text(json.dumps({"percent": percent, "environment": environment()}, indent=1) + "\n")
    print("\n".join(f"{room:16}{value:6.1f} %" for room, value in percent.items()))


if __name__ == "__main__":
    main()
