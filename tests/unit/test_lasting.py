"""Python's search for unreachable objects rests while many objects are made that stay."""

import gc

import pytest

from kd_ray.lasting import without_garbage_search


def test_the_search_rests_within_and_goes_on_after_an_error() -> None:
    @without_garbage_search()
    def fail() -> None:
        assert not gc.isenabled()
        raise ValueError("as it was")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="as it was"):
        fail()
    assert gc.isenabled()


def test_who_has_turned_the_search_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with without_garbage_search():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
