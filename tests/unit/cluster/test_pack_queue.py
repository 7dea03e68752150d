from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.packs import Pack, make_packs
from kd_ray.sweep.plan import expand

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
    assert (again.retries, again.crashes) == (1, 1)


def test_after_a_crash_the_rest_comes_back_in_two_halves() -> None:
    queue = PackQueue.of((), (), max_retries=3)
    pack = Pack(trials=tuple(trial for pack in PACKS if role(pack) == "distilled" for trial in pack.trials)[:3])
    queue.done |= pack.teachers
    queue.end(pack, committed=(), failed=(), crashed=True)
    assert [len(part.trials) for part in queue.waiting] == [2, 1]
    assert tuple(trial for part in queue.waiting for trial in part.trials) == pack.trials


def test_a_pack_that_was_too_large_comes_back_in_two_halves_and_nothing_is_counted() -> None:
    queue = PackQueue.of((), (), max_retries=0)
    pack = Pack(trials=tuple(trial for pack in PACKS if role(pack) == "distilled" for trial in pack.trials)[:3])
    queue.done |= pack.teachers
    done = pack.trials[0].trial_id
    queue.end(pack, committed={done}, failed=(), crashed=False, is_too_large=True)
    assert [(len(part.trials), part.retries, part.crashes) for part in queue.waiting] == [(1, 0, 0), (1, 0, 0)]
    assert tuple(trial for part in queue.waiting for trial in part.trials) == pack.trials[1:]
    assert not queue.given_up


def lone_pack(**changes: int) -> Pack:
    return Pack(trials=next(pack for pack in PACKS if role(pack) == "scratch").trials[:1], **changes)


def test_a_trial_that_kills_its_worker_ends_up_alone_and_is_given_up() -> None:
    """Guards the halves of `end`: one bad trial costs the others of its pack a few restarts, and nothing else."""
    pack = Pack(trials=tuple(trial for pack in PACKS if role(pack) == "distilled" for trial in pack.trials))
    assert len(pack.trials) == 6
    bad = pack.trials[4].trial_id
    queue = PackQueue.of([pack], pack.teachers, max_retries=1)
    ran: list[int] = []
    while taken := queue.take():
        ran.append(len(taken.trials))
        crashed = bad in ids(taken)
        queue.end(taken, committed=() if crashed else ids(taken), failed=(), crashed=crashed)
    assert queue.given_up == {bad}
    assert queue.done >= ids(pack) - {bad}
    assert ran == [6, 3, 3, 2, 1, 1, 1]


def test_a_trial_alone_is_given_up_after_so_many_crashes() -> None:
    """Guards `max_retries`: the first start and so many more."""
    queue = PackQueue.of([lone_pack()], (), max_retries=2)
    starts = 0
    while taken := queue.take():
        starts += 1
        assert (taken.retries, taken.crashes) == (starts - 1, starts - 1)
        queue.end(taken, committed=(), failed=(), crashed=True)
    assert starts == 3
    assert queue.given_up == ids(lone_pack())


def test_without_retries_a_crash_gives_the_whole_pack_up() -> None:
    queue = PackQueue.of((), (), max_retries=0)
    pack = next(pack for pack in PACKS if len(pack.trials) == 2)
    queue.end(pack, committed=(), failed=(), crashed=True)
    assert queue.given_up == ids(pack)
    assert not queue.waiting


def test_a_pack_that_lost_its_node_comes_back_whole_however_often() -> None:
    """Guards `at_fault`: nodes and stores that go away cost no trial its retries, and split no pack."""
    pack = next(pack for pack in PACKS if len(pack.trials) == 2)
    queue = PackQueue.of([pack], pack.teachers, max_retries=0)
    for losses in range(20):
        taken = queue.take()
        assert taken
        assert (taken.trials, taken.retries, taken.crashes) == (pack.trials, losses, 0)
        queue.end(taken, committed=(), failed=(), crashed=True, at_fault=False)
    assert not queue.given_up


def test_a_launch_ends_although_nodes_go_on_being_lost() -> None:
    """Guards `_RETRIES_WITHOUT_FAULT`."""
    queue = PackQueue.of([lone_pack()], (), max_retries=5)
    starts = 0
    while taken := queue.take():
        starts += 1
        queue.end(taken, committed=(), failed=(), crashed=True, at_fault=False)
    assert starts == 101
    assert queue.given_up == ids(lone_pack())


def test_losses_of_nodes_do_not_count_as_crashes() -> None:
    queue = PackQueue.of([lone_pack()], (), max_retries=1)
    for at_fault in (False, False, True, False):
        taken = queue.take()
        assert taken
        queue.end(taken, committed=(), failed=(), crashed=True, at_fault=at_fault)
    last = queue.take()
    assert last
    assert (last.retries, last.crashes) == (4, 1)
    queue.end(last, committed=(), failed=(), crashed=True)
    assert queue.given_up == ids(last)


def test_a_pack_that_ended_without_a_crash_is_not_started_again() -> None:
    queue = PackQueue.of(PACKS, (), max_retries=5)
    pack = queue.take()
    assert pack
    before = len(queue.waiting)
    queue.end(pack, committed=(), failed=(), crashed=False)
    assert len(queue.waiting) == before


def test_a_pack_that_does_not_fit_holds_back_those_behind_it() -> None:
    """Else a large teacher would wait for ever behind small students."""
    queue = PackQueue.of(PACKS, (), max_retries=0)
    assert queue.take(lambda pack: not pack.is_teacher) is None
    assert role(queue.take()) == "teacher"
