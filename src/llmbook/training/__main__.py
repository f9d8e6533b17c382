"""``python -m llmbook.training``: train from the shell."""

import sys

from llmbook.training.shell import main

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt as stopped:
        sys.exit(f"{stopped}")
