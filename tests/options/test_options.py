"""Options: one definition serves Python and the command line, with the same checks and messages."""

import dataclasses
import inspect

import pytest

from emhet_dask.errors import InputError
from emhet_dask.options import COMMANDS, command, kinds
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
