from kd_ray.cluster.queue import PackQueue
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.plan import Pack, expand, make_packs

SWEEP = """
name: q
dataset: {name: trifeature}
teacher: {model: resnet20, seed: paired}
student: {model: lenet5}
training: {epochs: 1, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
distillation: {alpha: 0.5, t_squared: true}
grid: {seed: [0, 1], temperature: [1, 2, 3]}
"""
PACKS = make_packs(expand(parse_sweep(SWEEP, source="q"), lambda path: ""), pack_size=2)


def ids(pack: Pack) -> set[str]:
    return {trial.trial_id for trial in pack.trials}


def role(pack: Pack | None) -> str | None:
    return pack.trials[0].spec.role.value if pack else None


def test_students_wait_for_their_own_teacher_and_scratch_fills_the_time() -> None:
    queue = PackQueue.of(PACKS, (), max_retries=0)
    taken = [queue.take() for _ in range(5)]
    assert [role(pack) for pack in taken] == ["teacher", "teacher", "scratch", "scratch", None]
    teacher = taken[1]
    assert teacher
    queue.end(teacher, committed=ids(teacher), failed=(), crashed=False)
    first, second, third = queue.take(), queue.take(), queue.take()
    assert [role(first), role(second), role(third)] == ["distilled", "distilled", None]
    assert first
    assert first.teachers == ids(teacher)
    assert not queue.is_exhausted()


def test_queue_is_exhausted_when_only_students_of_a_failed_teacher_are_left() -> None:
    queue = PackQueue.of(PACKS, (), max_retries=0)
    while pack := queue.take():
        failed = ids(pack) if role(pack) == "teacher" else set()
        queue.end(pack, committed=ids(pack) - failed, failed=failed, crashed=False)
    assert queue.is_exhausted()
    assert len(queue.waiting) == 4


def test_after_a_crash_only_what_is_left_queues_again_and_only_so_often() -> None:
    queue = PackQueue.of(PACKS, (), max_retries=1)
    queue.done |= {trial_id for pack in PACKS for trial_id in pack.teachers}
    pack = next(pack for pack in PACKS if role(pack) == "distilled" and len(pack.trials) == 2)
    queue.waiting.clear()
    queue.running[pack.pack_id] = pack
    first, second = (trial.trial_id for trial in pack.trials)
    queue.end(pack, committed={first}, failed=(), crashed=True)
    again = queue.take()
    assert again
    assert ids(again) == {second}
    queue.end(again, committed=(), failed=(), crashed=True)
    assert queue.is_exhausted()
    assert queue.given_up == {second}
    assert queue.retries == {second: 2}


def test_after_a_crash_the_rest_comes_back_in_two_halves() -> None:
    queue = PackQueue.of((), (), max_retries=3)
    pack = Pack(trials=tuple(trial for pack in PACKS if role(pack) == "distilled" for trial in pack.trials)[:3])
    queue.done |= pack.teachers
    queue.end(pack, committed=(), failed=(), crashed=True)
    assert [len(part.trials) for part in queue.waiting] == [2, 1]
    assert tuple(trial for part in queue.waiting for trial in part.trials) == pack.trials


def test_a_pack_that_ended_without_a_crash_is_not_started_again() -> None:
    queue = PackQueue.of(PACKS, (), max_retries=5)
    pack = queue.take()
    assert pack
    before = len(queue.waiting)
    queue.end(pack, committed=(), failed=(), crashed=False)
    assert len(queue.waiting) == before
