from hypothesis import given
from hypothesis import strategies as st

from lvm.data.names import LONGEST, first_names


def test_names_that_fit_are_all_named():
    assert first_names([]) == []
    assert first_names(["a", "b", "c"], 9) == ["a", "b", "c"]
    assert first_names(["a", "b", "c"], 8) == ["a", "b", "and 1 more"]


@given(st.lists(st.text(max_size=2 * LONGEST), min_size=1, max_size=30), st.integers(0, 2000))
def test_first_names_are_kept_and_the_rest_is_counted(names, characters):
    found = first_names(names, characters)
    whole = [short == (name if len(name) <= LONGEST else name[: LONGEST - 1] + "…") for name, short in zip(names, found, strict=False)]
    named = len(names) if all(whole) and len(found) == len(names) else len(found) - 1
    assert named >= 1 and all(whole[:named])
    assert named == len(names) or found[-1] == f"and {len(names) - named:,} more"
    assert sum(map(len, found[:named])) <= max(characters, LONGEST)
