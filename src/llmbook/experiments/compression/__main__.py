"""``python -m llmbook.experiments.compression``: compute the rows that are missing."""

from llmbook.experiments.compression.runs import main

if __name__ == "__main__":
    main()
