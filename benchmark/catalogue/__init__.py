"""What a suite can name: specs, methods, protocols, presets.

Nothing here imports torch or a method.
"""
