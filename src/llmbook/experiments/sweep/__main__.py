"""``python -m llmbook.experiments.sweep``: compute the rows that are missing."""

from llmbook.experiments.sweep.rows import main

if __name__ == "__main__":
    main()
