"""llmbook: the small, tested library behind *The Uncertainty of AI: Large Language Models, Measured*."""
