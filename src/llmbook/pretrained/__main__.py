"""``python -m llmbook.pretrained``: bring the models (``make models``)."""

import sys

from llmbook.pretrained.registry import main

sys.exit(main())
