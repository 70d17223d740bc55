"""Perceptrons on a CPU with their gradient written out: every unit, or one affine function per group of like rows.

Tensors in, tensors out; imports nothing of rl8 outside this folder.
"""
