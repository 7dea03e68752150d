"""Joint groups: their names and members."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.groups import Groups, intersect, joint_name


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["red", "dots"], "red & dots"),
        (["Asian", "White & Black"], 'Asian & "White & Black"'),
        (["Asian & White", "Black"], '"Asian & White" & Black'),
        (["a &", "b"], '"a &" & b'),
        (['"a"', "b"], '"""a""" & b'),
        (['5" screen', "b"], '5" screen & b'),
        (["R & D"], "R & D"),
    ],
)
def test_joint_name(parts: list[str], name: str) -> None:
    assert joint_name(parts) == name


@pytest.mark.slow
@given(st.lists(st.lists(st.text('a &"', min_size=1, max_size=4), min_size=2, max_size=3), min_size=2, max_size=40))
def test_different_parts_never_give_the_same_name(several: list[list[str]]) -> None:
    names = {joint_name([part.strip() or "x" for part in parts]) for parts in several}
    assert len(names) == len({tuple(part.strip() or "x" for part in parts) for parts in several})


def test_groups_whose_names_meet_when_joined_stay_apart() -> None:
    origin = Groups.from_codes(np.array([0, 1, 0, 1]), ["Asian", "Asian & White"])
    kin = Groups.from_codes(np.array([0, 1, 1, 0]), ["White & Black", "Black"])
    joint = intersect([origin, kin])
    assert joint.names == (
        'Asian & "White & Black"',
        "Asian & Black",
        '"Asian & White" & "White & Black"',
        '"Asian & White" & Black',
    )
    assert joint.to_lists() == [[joint.names[0]], [joint.names[3]], [joint.names[1]], [joint.names[2]]]
