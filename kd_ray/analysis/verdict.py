"""What a sweep shows, in the words that the terminal, the report and Python share: at most ten statements, the answer first.

Nothing is computed here but counts: every statement follows from the rows of the table `comparisons`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of a comparison. Each string is a sentence, or a few, in plain words; empty tuples are left out when it is shown."""

    asked: tuple[str, ...]
    """What was compared: conditions, seeds, teachers, test samples."""
    accuracy: tuple[str, ...]
    """How accuracy differs from scratch, established or not: what everybody asks first."""
    declared: tuple[str, ...]
    """What became of each claim that the sweep file declared before training."""
    established: tuple[str, ...]
    """Differences that hold after correction over the whole report, with effect and interval."""
    hints: tuple[str, ...]
    """Differences before correction, beside the number that is expected by chance, at most."""
    held_back: tuple[str, ...]
    """Differences that are not claimed, with the reason."""
    not_tested: tuple[str, ...]
    """Questions that these trials cannot answer, with the reason."""
    more: tuple[str, ...]
    """What these seeds could have found, and how many would settle what is open."""
    commands: tuple[str, ...]
    """What to type next."""

    def parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Heading and sentences, in the order in which they are read; without empty ones, but `ESTABLISHED` is always there."""
        nothing = ("Nothing.",)
        parts = (
            ("ASKED", self.asked),
            ("ACCURACY", self.accuracy),
            ("DECLARED", self.declared),
            ("ESTABLISHED", self.established or nothing),
            ("HINTS", self.hints),
            ("HELD BACK", self.held_back),
            ("NOT TESTED", self.not_tested),
            ("MORE SEEDS", self.more),
            ("NEXT", self.commands),
        )
        return tuple((title, sentences) for title, sentences in parts if sentences)
