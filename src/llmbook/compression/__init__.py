"""Smaller models: what to leave out, how few bits to keep, what a small one learns from a large one.

calibration: what a layer's inputs look like · reconstruction: one column at a time, the rest makes good ·
pruning · quantization · distillation · lowrank.
"""
