"""Smaller models: what to leave out, how few bits to keep, what a small one learns from a large one.

calibration: what a layer is fed · quality: what was lost, in bits of text · structure: parts taken out whole ·
reconstruction: one column at a time, the rest makes good · pruning · grids: levels and who shares a scale ·
quantization: packed layers, GPTQ, AWQ, training through the rounding · integers: layers on int8 · blocks: GGUF's ·
cache: keys and values in few bits · distillation · lowrank · storage: any of them on disk.
"""
