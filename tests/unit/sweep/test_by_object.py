"""What is remembered of an object, by which object it is."""

from kd_ray.sweep.by_object import _MOST, by_object


class Thing:
    def __init__(self, name: int) -> None:
        self.name = name


def test_a_result_stays_while_older_ones_are_dropped() -> None:
    """Guard: a full memory was emptied, and what the sweep was just planned with was computed again."""
    computed: list[int] = []

    @by_object
    def remembered(thing: Thing) -> int:
        computed.append(thing.name)
        return thing.name

    things = [Thing(name) for name in range(_MOST + 3)]
    for thing in things:
        remembered(thing)
    computed.clear()
    for thing in things[3:]:
        assert remembered(thing) == thing.name
    assert computed == []
    remembered(things[0])
    assert computed == [0]
