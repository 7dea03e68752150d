"""The claims of a sweep as its manifests keep them: what was declared, when, and how much was known by then.

A claim keeps the date of the manifest in which it first appeared. One that the sweep file no longer has stays, as withdrawn; when it comes
back, it is declared anew, because results may have been seen meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kd_ray.bounded import IsoDate
from kd_ray.errors import CorruptObjectError
from kd_ray.results.ledger import scan
from kd_ray.results.store import Store
from kd_ray.sweep.trial_states import TrialState

if TYPE_CHECKING:
    from kd_ray.sweep.claims import Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredClaim:
    """A claim, and when it was declared."""

    claim: Mapping[str, Any]
    """The claim, as `Claim.to_json` gives it."""
    sha256: str
    """Of its canonical JSON: `Claim.sha256`."""
    declared_at: IsoDate
    """UTC date and time of the manifest in which it first appeared, in ISO 8601."""
    num_complete: int
    """Trials of the sweep that were complete then; 0 for a claim that was declared before training."""
    num_trials: int
    """Trials that the sweep had asked for up to then."""
    withdrawn_at: IsoDate | None = None
    """UTC date and time of the first manifest whose sweep file no longer has it."""
    num_complete_at_withdrawal: int | None = None
    """Trials of the sweep that were complete then."""

    @property
    def is_withdrawn(self) -> bool:
        """Whether the sweep file no longer has it."""
        return self.withdrawn_at is not None

    def to_claim(self) -> "Claim":
        """The claim, typed.

        Raises:
            CorruptObjectError: it is none.
        """
        # Models of sweep files take half a second to import; lists of trials do not wait for them.
        from kd_ray.sweep.claims import Claim

        try:
            return Claim.model_validate(dict(self.claim))
        except ValueError as error:
            raise CorruptObjectError(f"the manifest holds a claim that is none: {dict(self.claim)}") from error


def continue_declared(
    before: Sequence[DeclaredClaim], claims: "Sequence[Claim]", *, store: Store, trial_ids: Sequence[str]
) -> tuple[DeclaredClaim, ...]:
    """What a new manifest records: the claims of the one before, and what has been declared and withdrawn since.

    `trial_ids` are all trials that the sweep ever asked for; those that are complete are counted only if there is something to record.
    """
    asked = {claim.sha256: claim for claim in claims}
    standing = {old.sha256 for old in before if not old.is_withdrawn}
    if standing == set(asked):
        return tuple(before)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    num_complete = sum(status.state is TrialState.COMPLETE for status in scan(store, trial_ids).values())

    def followed(old: DeclaredClaim) -> DeclaredClaim:
        if old.is_withdrawn or old.sha256 in asked:
            return old
        return replace(old, withdrawn_at=now, num_complete_at_withdrawal=num_complete)

    new = (
        DeclaredClaim(
            claim=claim.to_json(),
            sha256=digest,
            declared_at=now,
            num_complete=num_complete,
            num_trials=len(trial_ids),
        )
        for digest, claim in asked.items()
        if digest not in standing
    )
    return (*map(followed, before), *new)


def united_declared(mine: Sequence[DeclaredClaim], theirs: Sequence[DeclaredClaim]) -> tuple[DeclaredClaim, ...]:
    """The claims of two stores of one sweep. A claim that both have was declared when the later of them says so."""
    others = {_key(other): other for other in theirs}
    kept = []
    for own in mine:
        other = others.pop(_key(own), own)
        later = max(own, other, key=lambda it: it.declared_at)
        num_complete = max(own.num_complete, other.num_complete)
        kept.append(replace(later, num_complete=num_complete, num_trials=max(own.num_trials, other.num_trials)))
    return (*kept, *others.values())


def _key(declared: DeclaredClaim) -> tuple[str, str | None]:
    # A claim that was withdrawn and came back has several lines.
    return declared.sha256, declared.withdrawn_at
