import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_jax import data

NAMES = ("Male", "Smiling", "5_o_Clock_Shadow")
COLUMNS = {name: np.array([bool(i >> bit & 1) for i in range(8)]) for bit, name in enumerate(NAMES)}


def mask(text):
    return data.parse(text, NAMES).mask(COLUMNS)


@pytest.mark.parametrize("text", ["Male & ~Smiling", "Male and not Smiling", "(Male)&(~(Smiling))"])
def test_an_attribute_without_another(text):
    np.testing.assert_array_equal(mask(text), COLUMNS["Male"] & ~COLUMNS["Smiling"])


def trees():
    names = st.sampled_from(NAMES)
    return st.recursive(
        names,
        lambda inner: st.one_of(
            inner.map(lambda a: f"~{a}"),
            inner.map(lambda a: f"({a})"),
            st.tuples(inner, st.sampled_from("&|"), inner).map(" ".join),
        ),
        max_leaves=8,
    )


@given(trees())
def test_precedence_is_pythons(text):
    python = text.replace("5_o_Clock_Shadow", "Shadow")
    variables = {**COLUMNS, "Shadow": COLUMNS["5_o_Clock_Shadow"]}
    np.testing.assert_array_equal(mask(text), eval(python, {}, variables))


@given(trees())
def test_certain_probabilities_give_the_mask_where_names_are_not_repeated(text):
    certain = {name: column.astype(float) for name, column in COLUMNS.items()}
    chances = data.parse(text, NAMES).probability(certain)
    np.testing.assert_array_equal(chances > 0.5, mask(text))


def test_probabilities_multiply_as_if_independent():
    chances = {"Male": np.array([0.5]), "Smiling": np.array([0.2])}
    assert data.parse("Male & ~Smiling", NAMES).probability(chances) == pytest.approx(0.4)
    assert data.parse("Male | Smiling", NAMES).probability(chances) == pytest.approx(0.6)


def test_a_person_is_a_forget_set():
    identity = np.array([1, 2, 1234, 2])
    one = data.parse("identity == 1234", NAMES)
    assert one.mask({}, identity).tolist() == [False, False, True, False]
    assert not one.of_attributes
    others = data.parse("identity != 2 & Male", NAMES)
    assert others.mask({"Male": identity > 1}, identity).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="identities"):
        one.mask({}, None)
    with pytest.raises(ValueError, match="attributes alone"):
        one.probability({})


def test_an_unknown_attribute_lists_those_there_are():
    with pytest.raises(ValueError, match="one of the 40 attributes") as error:
        data.parse("Mael", data.ATTRIBUTES)
    assert all(name in str(error.value) for name in data.ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "an attribute .* got the end"),
        ("Male &", "an attribute .* got the end"),
        ("Male Smiling", "the end .* got 'Smiling'"),
        ("(Male", r"'\)' .* got the end"),
        ("identity = 3", "behind identity .* got '='"),
        ("identity == Male", "NUMBER"),
        ("Male + Smiling", r"the end .* got '\+'"),
        ("Male)", r"the end .* got '\)'"),
    ],
)
def test_mistakes_say_what_was_expected_and_what_was_got(text, expected):
    with pytest.raises(ValueError, match=expected):
        data.parse(text, NAMES)
