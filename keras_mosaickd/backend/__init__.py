"""What differs between backends: the training step, the fused forward pass, private Keras.

Nothing in here knows a loss or a phase.
"""
