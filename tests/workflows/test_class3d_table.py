"""Columns of any table of a STAR file, printed and plotted."""

import io

import pandas as pd
import pytest

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.star import read_star, write_star


@pytest.fixture
def model(tmp_path):
    classes = pd.DataFrame(
        {
            "rlnReferenceImage": ["a class001.mrc", "class002.mrc"],
            "rlnClassDistribution": [0.25, 0.75],
            "rlnNumber": [1, 2],
            "other": [5.0, 6.0],
        }
    )
    path = tmp_path / "run_it025_model.star"
    write_star(path, {"model_general": {"rlnNrClasses": 2, "rlnLogLikelihood": 3.5},
                      "model_classes": classes}, version=30001)  # fmt: skip
    return str(path)


@pytest.mark.parametrize("name", ["model_classes", "data_model_classes"])
@pytest.mark.parametrize("prefix", ["_rln", "rln", ""])
def test_columns_by_any_of_their_names(model, name, prefix):
    found = emhet_dask.class3d_table(model, name, [f"{prefix}Number", f"{prefix}ClassDistribution"])
    assert found.describe() == "1 0.25\n2 0.75"


def test_a_table_as_text_csv_and_star(model, tmp_path):
    def printed(**options):
        return emhet_dask.class3d_table(model, "model_classes", **options).describe()

    whole = read_star(model).table("model_classes")
    assert printed().splitlines()[1] == "class002.mrc 0.75 2 6.0"
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(printed(format="csv"))), whole,
                                  check_dtype=False)  # fmt: skip
    (tmp_path / "again.star").write_text(printed(format="star"))
    pd.testing.assert_frame_equal(
        read_star(tmp_path / "again.star").table("model_classes"), whole, check_dtype=False
    )


def test_label_value_blocks_are_tables_of_one_row(model):
    assert emhet_dask.class3d_table(model, "model_general", ["LogLikelihood"]).text == "3.5"


def test_output_into_files_that_are_not_replaced_unasked(model, tmp_path):
    output, plot = str(tmp_path / "out" / "t.csv"), str(tmp_path / "out" / "t.png")

    def run(**options):
        return emhet_dask.class3d_table(
            model, "model_classes", ["Number", "other"], format="csv", **options
        )

    assert run(output=output, plot=plot).describe() == f"{output}\n{plot}"
    assert (tmp_path / "out" / "t.csv").read_bytes() == b"rlnNumber,other\n1,5.0\n2,6.0\n"
    assert (tmp_path / "out" / "t.png").read_bytes()[:4] == b"\x89PNG"
    for options in ({"output": output}, {"plot": plot}):
        with pytest.raises(InputError, match="exists; --overwrite replaces it"):
            run(**options)
    run(plot=plot, overwrite=True)


@pytest.mark.parametrize(
    ("name", "columns", "options", "message"),
    [
        ("model_x", [], {}, "has no block data_model_x; it holds data_model_general, data_model"),
        ("model_classes", ["Nope"], {}, "data_model_classes has no column 'Nope'; it has rlnRef"),
        ("model_classes", [], {"format": "json"}, "--format: got 'json', expected one of text"),
        ("model_classes", [], {"plot": "a.pdf"}, r"--plot: got 'a\.pdf', expected .* \.png"),
        ("model_classes", ["Number", "ReferenceImage"], {"plot": "a.png"},
         "--plot: column rlnReferenceImage has no numbers to plot"),
    ],
)  # fmt: skip
def test_what_cannot_be_printed_is_refused(
    model, name, columns, options, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        emhet_dask.class3d_table(model, name, columns, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("a.*"))
