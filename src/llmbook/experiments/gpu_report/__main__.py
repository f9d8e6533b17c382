"""``python -m llmbook.experiments.gpu_report``: measure this machine."""

from llmbook.experiments.gpu_report.report import main

if __name__ == "__main__":
    main()
