from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvm.data.encoder_name import split_name
from lvm.errors import InputError


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_an_option(text):
    assert split_name(f"kind:some/folder?prompt={quote_plus(text)}", ("prompt",)) == ("some/folder", {"prompt": text})


@pytest.mark.parametrize("name", ["kind:folder", "kind:hub/name:tag#part"])
def test_name_without_options_is_its_argument(name):
    assert split_name(name, ("prompt",)) == (name.partition(":")[2], {})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("promt=x", "each of prompt, tokenizer may stand once"),
        ("prompt=x&prompt=y", "each of prompt, tokenizer may stand once"),
        ("prompt", "not option=value"),
        ("", "not option=value"),
        ("prompt=%ff", "not option=value"),
    ],
)
def test_wrong_option_is_refused_beside_the_known_ones(options, reason):
    with pytest.raises(InputError, match=reason):
        split_name(f"kind:folder?{options}", ("prompt", "tokenizer"))


def test_name_of_options_alone_is_refused():
    with pytest.raises(InputError, match="nothing stands before"):
        split_name("kind:?prompt=x", ("prompt",))
