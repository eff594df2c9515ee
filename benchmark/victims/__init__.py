"""Victim architectures, one in each file; the file name is the victim's name.

Each file has a function ``build(info)`` that makes the network. A victim takes float images
(B, C, H, W) in [0, 1] and returns logits (B, num_classes). An architecture that needs normalised
input normalises it in its own first layer.

A network may have a method ``prepare(data)``, which sets its buffers from the training images. It
gets an ``ImageSet`` before the first step; the same images must give the same buffers.
"""
