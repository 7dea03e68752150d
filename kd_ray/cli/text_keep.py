"""What the commands that keep a store in order print: text made of their typed reports. No computation."""

import shlex

from kd_ray.cli.tables import render, table_of
from kd_ray.cli.text_status import ignored
from kd_ray.errors import count_of
from kd_ray.housekeeping.adopt import AdoptReport
from kd_ray.housekeeping.audit import DEFINITIONS, AuditReport
from kd_ray.housekeeping.garbage import GarbageReport
from kd_ray.housekeeping.problems import Remedy, VerifyReport
from kd_ray.housekeeping.repair import RepairReport


def garbage(report: GarbageReport) -> str:
    """What is safe to delete, by kind."""
    lines = [f"kept: {note}" for note in report.notes]
    if not report.garbage:
        return "\n".join(
            [
                f"store {report.store}: nothing to delete; objects younger than a minute and a half are always kept",
                *lines,
            ]
        )
    table = table_of(["what", "objects", "size", "why it is safe to delete"], right=[1, 2])
    for group in report.groups():
        table.add_row(group.kind.value, f"{group.num_objects:,}", size(group.size_bytes), group.reason)
    return "\n".join([render(table), *lines])


def collected(report: GarbageReport, *, deleted: bool, asked: bool) -> str:
    """Whether the garbage was deleted."""
    count = f"{count_of(len(report.garbage), 'object')}, {size(report.size_bytes)}"
    if deleted:
        return "\n".join([f"deleted: {count}", *report.notes])
    return f"nothing deleted: {count}" + (
        "" if asked else "; without a terminal there is no question, --yes deletes them"
    )


def size(size_bytes: int) -> str:
    """A number of bytes with its unit."""
    amount, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def verified(report: VerifyReport, repaired: RepairReport | None, *, store: str | None) -> str:
    """What was checked, what is wrong, what was repaired, and the next command. `store` is None for the default store."""
    option = f" --store {shlex.quote(store)}" if store else ""
    lines = [f"problem: {problem.key}: {problem.what}" for problem in report.problems]
    sweeps, records = count_of(len(report.sweeps), "sweep"), count_of(report.num_records, "record")
    problems = count_of(len(report.problems), "problem") if report.problems else "no problems"
    lines.append(
        f"store {report.store}: {sweeps}, {records}, {count_of(report.num_checked, 'object')} read, {problems}"
    )
    if report.strangers:
        lines.append(ignored(report.strangers))
    if report.num_quarantined:
        lines.append(
            f"{count_of(report.num_quarantined, 'object')} in quarantine; `kd-ray gc --damaged{option}` deletes them"
        )
    if repaired is None:
        if any(problem.remedy is not Remedy.NONE for problem in report.problems):
            lines.append(f"repair with:  kd-ray verify {' '.join([*report.asked, '--repair'])}{option}")
        return "\n".join(lines)
    lines += [f"done: {line}" for line in repaired.done]
    lines += [f"not repaired: {line}" for line in repaired.left]
    lines += [f"continue with:  kd-ray resume {sweep}{option}" for sweep in repaired.to_resume]
    return "\n".join(lines)


def audited(report: AuditReport) -> str:
    """Which numbers other libraries do not confirm, how many were recomputed, and where definitions differ on purpose."""
    lines = [f"disagreement: {disagreement}" for disagreement in report.disagreements]
    trials, numbers = count_of(report.num_trials, "trial"), count_of(report.num_numbers, "number")
    result = count_of(len(report.disagreements), "disagreement") if report.disagreements else "all agree"
    lines.append(f"audit by scikit-learn and fairlearn: {trials}, {numbers} recomputed, {result}")
    if report.num_undefined:
        lines.append(f"{count_of(report.num_undefined, 'rate')} undefined: {DEFINITIONS}")
    return "\n".join(lines)


def adopted(report: AdoptReport) -> str:
    """What was merged, and what was not."""
    verb = "would be adopted" if report.is_dry_run else "adopted"
    lines = [f"not adopted: trial {trial_id}: {why}" for trial_id, why in report.skipped.items()]
    lines += [
        f"not adopted: trial {trial_id}: both stores have it, with different predictions"
        for trial_id in report.different
    ]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"warning: {warning}" for warning in report.warnings]
    trials = f"{count_of(len(report.adopted), 'trial')} {verb}, {len(report.present)} were there already"
    sweeps = f"; sweeps: {', '.join(report.sweeps)}" if report.sweeps else ""
    return "\n".join([*lines, f"{report.source} → {report.target}: {trials}{sweeps}"])
