"""Kinds of sample."""
