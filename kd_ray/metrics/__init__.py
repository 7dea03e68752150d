"""What a model does to classes, groups and single samples: plain functions of NumPy arrays, without torch and ray.

They take hard predictions or probabilities of one test set and leave to others where these come from (`distill`),
how they are kept (`results`) and which differences between models are real (`analysis`).
"""
