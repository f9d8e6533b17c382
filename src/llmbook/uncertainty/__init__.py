"""What a probability promises, and whether it keeps it.

calibration: confidence against frequency, Brier score, temperature · ensembles: total, aleatoric, epistemic ·
conformal: sets with a guarantee · meanings: entropy over meanings, and how well a score finds errors ·
register: a small world of arbitrary facts, and a GPT that reads it · asking: a real model's answers, drawn in batches.
"""

from llmbook.uncertainty.calibration import (
    BrierParts,
    Reliability,
    brier_parts,
    brier_score,
    calibration_error,
    debiased_squared_error,
    fit_temperature,
    reliability,
    tempered,
)
from llmbook.uncertainty.conformal import (
    adaptive_scores,
    conformal_quantile,
    coverage_law,
    label_scores,
    label_sets,
)
from llmbook.uncertainty.ensembles import UncertaintyParts, dropout_on, entropy, kl_divergence, uncertainty_parts
from llmbook.uncertainty.meanings import auroc, auroc_interval, meanings, self_consistency, semantic_entropy

__all__ = [
    "BrierParts", "Reliability", "UncertaintyParts", "adaptive_scores", "auroc", "auroc_interval", "brier_parts",
    "brier_score", "calibration_error", "conformal_quantile", "coverage_law", "debiased_squared_error",
    "dropout_on", "entropy", "fit_temperature", "kl_divergence", "label_scores", "label_sets", "meanings",
    "reliability", "self_consistency", "semantic_entropy", "tempered", "uncertainty_parts",
]  # fmt: skip
