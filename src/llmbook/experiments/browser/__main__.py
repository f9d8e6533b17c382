"""Run the race in a browser and write its results: ``python -m llmbook.experiments.browser [FILE]``."""

import json
import sys
from pathlib import Path

from llmbook.experiments.browser.race import DATA, CannotRace, race
from llmbook.files import write_whole


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    try:
        found = race()
    except CannotRace as error:
        sys.exit(f"error: {error}")
    write_whole(target, json.dumps(found, indent=1) + "\n")
    for row in found["rows"]:
        name = f"{row['model']}, {row['runtime']}, {row['weights']}"
        speed = f"{row['tokens_per_second']:8.0f} tokens/s ({row['slowest']:.0f} to {row['fastest']:.0f})"
        print(f"{name:60} {speed} {row['bytes']:>11,} bytes, logits differ by {row['logits_difference']:.2g}")


if __name__ == "__main__":
    main()
