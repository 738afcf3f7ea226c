"""Batches for training: which images, crops and flips each step uses, on every backend."""
