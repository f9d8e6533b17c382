"""``python -m llmbook.experiments.ladder``: compute the rungs that are missing."""

from llmbook.experiments.ladder.runs import main

if __name__ == "__main__":
    main()
