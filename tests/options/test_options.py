"""Options: one definition serves Python and the command line, with the same checks and messages."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from emhet_dask.errors import InputError
from emhet_dask.options import COMMANDS, command, kinds
from emhet_dask.options.blocks import Blocks
from emhet_dask.options.landscape import Landscape


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_clusters": 0}, "--n-clusters: got 0, expected a whole number of at least 1, or auto"),
        ({"n_clusters": "many"}, "--n-clusters: got 'many', expected a whole number"),
        ({"n_clusters": 2.5}, "--n-clusters: got 2.5, expected a whole number"),
        ({"n_components": True}, "--n-components: got True"),
        ({"linkage": "Ward"}, "--linkage: got 'Ward', expected one of ward, average"),
        ({"dilate": -1}, "--dilate: got -1, expected a number of at least 0"),
        ({"threshold": "nan"}, "--threshold: got 'nan', expected a number"),
        ({"normalize": "yes"}, "--normalize: got 'yes', expected True or False"),
        ({"n_clusters": float("inf")}, "--n-clusters: got inf, expected a whole number"),
        ({"memory_limit": "-4GB"}, "--memory-limit: got '-4GB', expected an amount of memory"),
        ({"memory_limit": "nan"}, "--memory-limit: got 'nan', expected an amount of memory"),
        ({"memory_limit": "lots"}, "--memory-limit: got 'lots', expected an amount of memory"),
    ],
)
def test_wrong_values_name_the_option_and_what_would_be_right(given, message):
    with pytest.raises(InputError) as refused:
        Landscape(ensemble="e.zarr", output="out", **given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_text_and_values_parse_alike():
    from_text = Landscape(ensemble="e", output="o", n_clusters="7", threshold="0", dilate="1e1")
    from_python = Landscape(ensemble="e", output="o", n_clusters=7, threshold=0.0, dilate=10)
    assert from_text == from_python
    assert from_text.threshold == 0.0  # zero is a threshold, not its absence


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", (3,)), ("0,3", (0, 3)), ("7-9,1", (7, 8, 9, 1)), (5, (5,))]
)
def test_lists_of_numbers(text, numbers):
    assert kinds.numbers().parse(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-3", "5-3", "0-99999999999"])
def test_lists_that_are_none(text):
    with pytest.raises(ValueError, match=r".*"):
        kinds.numbers().parse(text)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("0.8", (0.8,)),
        ("0.8, 1,1e-3", (0.8, 1.0, 0.001)),
        ([0.8, "1"], (0.8, 1.0)),
        ((0.25,), (0.25,)),
        (2, (2.0,)),
        (0.5, (0.5,)),
    ],
)
def test_lists_of_decimals(given, numbers):
    found = kinds.decimals("factors", above=0).parse(given)
    assert found == numbers
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize(
    "given", ["", "a", "1,,2", "0", "1,0", "-1", "nan", "inf", [], 0, "0.5", [0.2, 0.7], True, None]
)
def test_decimals_that_are_none_or_out_of_bounds(given):
    with pytest.raises((ValueError, TypeError)):
        kinds.decimals("levels", above=0, below=0.5).parse(given)


@pytest.mark.parametrize(
    ("given", "text"),
    [("auto", "auto"), ("0.02", "0.02"), (0.02, "0.02"), (-1, "-1.0"), (Path("t.csv"), "t.csv")],
)
def test_a_number_or_a_path_is_a_text(given, text):
    assert Blocks(ensemble="e", output="o", threshold=given).threshold == text


@pytest.mark.parametrize("given", [None, "", True, [0.1], b"t.csv"])
def test_neither_a_number_nor_a_path(given):
    with pytest.raises(InputError, match=r"--threshold: got .*, expected auto, a number or"):
        Blocks(ensemble="e", output="o", threshold=given)


def test_decimals_that_an_option_refuses():
    message = "--screen-p: got '0.01,0.5', expected levels separated by commas, such as 0.001,0.01"
    with pytest.raises(InputError, match=message):
        Blocks(ensemble="e", output="o", screen_p="0.01,0.5")
    with pytest.raises(InputError, match="--screen-thresholds: got '0', expected factors"):
        Blocks(ensemble="e", output="o", screen_thresholds="0")
    assert Blocks(ensemble="e", output="o", screen_p="0.01").screen_p == (0.01,)


@pytest.mark.parametrize(("given", "text"), [("3", "3"), (3, "3"), ("uL2", "uL2"), ("003", "003")])
def test_labels_are_numbers_or_names_and_stay_texts(given, text):
    assert kinds.label(expected="a name").parse(given) == text


@pytest.mark.parametrize("given", ["", True, 1.5, None, ("a",)])
def test_labels_that_are_none(given):
    with pytest.raises(ValueError, match=r".*"):
        kinds.label(expected="a name").parse(given)


@pytest.mark.parametrize(("options", "target"), COMMANDS.values(), ids=str)
def test_every_option_is_documented_and_every_default_is_legal(options, target):
    assert options.summary
    assert options.examples
    for name, (meta, default) in options.options().items():
        assert meta.help.endswith("."), name
        if default is not dataclasses.MISSING and default is not None:
            assert meta.kind.parse(default) == default, name
    module, _, function = target.partition(":")
    assert module.startswith("emhet_dask.workflows.")
    assert function.isidentifier()


def test_python_face_has_signature_defaults_and_docstring():
    @command(Landscape)
    def landscape(options):
        """Do it.

        Returns
        -------
        object
        """
        return options

    signature = inspect.signature(landscape)
    assert next(iter(signature.parameters)) == "ensemble"
    assert signature.parameters["linkage"].default == "ward"
    assert signature.parameters["linkage"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "Parameters\n----------\nensemble" in landscape.__doc__
    assert landscape.__doc__.index("Parameters") < landscape.__doc__.index("Returns")
    assert landscape("e", output="o").linkage == "ward"
    with pytest.raises(TypeError, match="missing a required argument: 'output'"):
        landscape("e")
