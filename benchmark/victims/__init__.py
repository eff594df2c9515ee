"""Victim architectures, one file each; the file name is the victim's name and ``build(info)`` makes it.

A victim takes float images in [0, 1], (B, C, H, W), and returns logits (B, num_classes). Where an architecture wants
normalised input, normalising is its own first layer.
"""
