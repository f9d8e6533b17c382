"""``python -m llmbook.experiments.prompted``: compute what is missing from the file."""

from llmbook.experiments.prompted.runs import main

main()
