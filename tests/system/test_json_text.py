"""JSON and Python literals: a key that occurs twice is an error."""

import pytest

from batchland.system.json_text import parse_json, parse_literal


@pytest.mark.parametrize("parse", [parse_json, parse_literal])
def test_a_key_that_occurs_twice_is_an_error_at_every_depth(parse):
    assert parse('{"a": [{"b": 1}, {"b": 2}], "b": 3}') == {"a": [{"b": 1}, {"b": 2}], "b": 3}
    for text in ('{"b": 1, "a": 2, "b": 1}', '[{"a": {"b": 1, "b": 2}}]'):
        with pytest.raises(ValueError, match="has the key") as caught:
            parse(text)
        assert str(caught.value) == "has the key 'b' 2 times"


def test_equal_numbers_are_one_key():
    with pytest.raises(ValueError, match="has the key 1 2 times"):
        parse_literal("{0: 'a', 1: 'b', 1.0: 'c'}")


@pytest.mark.parametrize("text", ["{", "[1,", "f()", "x"])
def test_other_text_is_an_error(text):
    with pytest.raises(ValueError, match="is not a Python literal"):
        parse_literal(text)
    with pytest.raises(ValueError, match="is not JSON"):
        parse_json(text)
