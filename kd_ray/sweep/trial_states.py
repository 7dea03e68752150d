"""What a trial is in its sweep, and how far it is. Apart from `spec.py`, so that who only reads states does not import its models."""

from enum import StrEnum


class Role(StrEnum):
    """The role of a trial in a sweep."""

    TEACHER = "teacher"
    SCRATCH = "scratch"
    DISTILLED = "distilled"


class TrialState(StrEnum):
    """The state of a trial, derived from the objects in the store."""

    COMPLETE = "complete"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    PENDING = "pending"
