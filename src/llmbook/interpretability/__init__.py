"""Looking into a model, and testing what one believes to have seen.

hooks: record and change heads and the stream · attribution: which words · patching: which parts · induction: heads
that copy · probing: what can be read off · lenses: what it would say so far · dictionaries: superposition, features.
"""

from llmbook.interpretability.attribution import (
    completeness_gap,
    gradient,
    gradient_times_input,
    hits,
    integrated_gradients,
    leave_one_out,
    saliency,
)  # fmt: skip
from llmbook.interpretability.dictionaries import (
    SparseAutoencoder,
    best_f1,
    best_units,
    principal_directions,
    random_directions,
    represented,
    sparse_features,
    squeeze,
    train_autoencoder,
    train_squeezed,
)  # fmt: skip
from llmbook.interpretability.hooks import (
    blocks_of,
    change_stream,
    mean_heads,
    record_heads,
    record_stream,
    replace_heads,
)  # fmt: skip
from llmbook.interpretability.induction import (
    copy_losses,
    induction_scores,
    periodic_rows,
    previous_scores,
    repeated,
)  # fmt: skip
from llmbook.interpretability.lenses import Translator, divergence, fit_translator, logit_lens, read_out
from llmbook.interpretability.patching import (
    Pairs,
    add_on_path,
    patch_heads,
    patch_paths,
    patch_stream,
    recovery,
    written_by,
)  # fmt: skip
from llmbook.interpretability.probing import Probe, control_labels, fit_deep_probe, fit_probe, projected_out

__all__ = [
    "Pairs", "Probe", "SparseAutoencoder", "Translator", "add_on_path", "best_f1", "best_units", "blocks_of",
    "change_stream", "completeness_gap", "control_labels", "copy_losses", "divergence", "fit_deep_probe",
    "fit_probe", "fit_translator", "gradient", "gradient_times_input", "hits", "induction_scores",
    "integrated_gradients", "leave_one_out", "logit_lens", "mean_heads", "patch_heads", "patch_paths",
    "patch_stream", "periodic_rows", "previous_scores", "principal_directions", "projected_out",
    "random_directions", "read_out", "record_heads", "record_stream", "recovery", "repeated", "replace_heads",
    "represented", "saliency", "sparse_features", "squeeze", "train_autoencoder", "train_squeezed", "written_by",
]  # fmt: skip
