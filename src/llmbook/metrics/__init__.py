"""Scores, what they are worth, and how to tell a difference from luck.

classification: accuracy, precision, recall, F1, pass@k · text: chrF, bits per byte · ratings: Elo, Bradley-Terry ·
significance: McNemar's test, paired and clustered tests, test sets that are large enough · contamination: test texts
that a model has seen · agreement: kappa, alpha, panels of raters. BLEU stands in ``applications.translation``, ROUGE
in ``applications.summarization``, exact match in ``applications.answering``.
"""
