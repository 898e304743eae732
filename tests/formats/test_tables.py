"""The user's own tables: every volume once, by name or by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.tables import (
    read_csv,
    read_names,
    read_thresholds,
    read_weights,
)

NAMES = ["job1/vol_001", "job2/vol_001", "vol_002"]


def saved(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "name,weight\njob1/vol_001,5\njob2/vol_001,0\nvol_002,2.5\n",
        "Name, Weight\nvol_002.mrc, 2.5\njob2/vol_001.mrc, 0\njob1/vol_001.mrc, 5\n",
        "name,weight\n/data/job1/vol_001.mrc,5\n/data/job2/vol_001.mrc.gz,0\n/x/vol_002.map,2.5\n",
        "volume,weight\n2,2.5\n0,5\n1,0\n",
        "volume,name,weight\n9,vol_002,2.5\n9,job1/vol_001,5\n9,job2/vol_001,0\n",
        "name,weight\njob1/vol_001,5\njob2/vol_001,0\nvol_002,2.5\nvol_003,7\n",
    ],
)
def test_weights_are_found_by_name_or_number(tmp_path, text):
    weights = read_weights(saved(tmp_path, text), names=NAMES)
    assert list(weights) == [5, 0, 2.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,w\na,1\n", "expected the columns name,weight or volume,weight, found name,w"),
        ("weight\n1\n", "expected the columns"),
        ("name,weight\nvol_002,1\n", "2 volumes do not fit: job1/vol_001 is missing; job2"),
        ("name,weight\njob1/vol_001,1\njob2/vol_001,1\nvol_002,1\nvol_002.mrc,2\n",
         "vol_002 is there 2 times"),
        ("name,weight\nvol_001,1\nvol_002,1\nx/vol_001,1\n",
         "vol_001 may be job1/vol_001 or job2/vol_001; name the folder too"),
        ("volume,weight\n0,1\n1,1\n", "volume 2 is missing"),
        ("volume,weight\n0,1\n1,1\n1,1\n2,2\n", "volume 1 is there twice"),
        ("volume,weight\n0,1\n1,1\n3,2\n", "has volume 3; volumes are numbered from 0 to 2"),
        ("volume,weight\n0,1\n1,1\n-1,2\n", "has volume -1"),
        ("volume,weight\n0,1\n1,1\n1.5,2\n", "something else than whole numbers"),
        ("volume,weight\n0,1\n1,1\nx,2\n", "something else than whole numbers"),
        ("volume,weight\n0,1\n1,x\n2,y\n", r"the weight of job2/vol_001 is 'x'.*and 1 more"),
        ("volume,weight\n0,1\n1,-1\n2,1\n", "the weight of job2/vol_001 is '-1'"),
        ("volume,weight\n0,1\n1,inf\n2,1\n", "is 'inf'"),
        ("volume,weight\n0,0\n1,0\n2,0\n", "all weights are 0"),
        ("", "cannot be read as CSV"),
        ("a,b\n1,2\n1,2,3,4\n", "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_faulty_weights_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_weights(saved(tmp_path, text), names=NAMES)
    assert "table.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", ["original_filename,custom_name", "original_filename,customname_1"]
)
@pytest.mark.parametrize("ending", ["", ".mrc"])
def test_names_have_two_headers_and_maybe_an_ending(tmp_path, header, ending):
    text = f"{header}\nvol_002{ending},30S\njob1/vol_001{ending},50S\njob2/vol_001{ending},µ 70S\n"
    assert read_names(saved(tmp_path, text), names=NAMES) == ["50S", "µ 70S", "30S"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,custom_name\n", "expected the columns original_filename,custom_name, found file"),
        ("original_filename,alias\n", "expected the columns original_filename,custom_name"),
        ("original_filename,custom_name\nvol_002,x\n", "job1/vol_001 is missing"),
        ("original_filename,custom_name\nvol_002,x\njob1/vol_001,x\njob2/vol_001,y\n",
         "custom name 'x' is given to more than one volume"),
        ("original_filename,custom_name\nvol_002,x\njob1/vol_001,\njob2/vol_001,y\n",
         "custom name of job1/vol_001 is empty"),
    ],
)  # fmt: skip
def test_faulty_names_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_names(saved(tmp_path, text), names=NAMES)


@given(st.permutations(range(30)), st.booleans())
def test_the_order_of_the_rows_does_not_matter(tmp_path_factory, order, by_name):
    names = [f"run{index % 3}/vol_{index:03d}" for index in range(30)]
    keys = names if by_name else list(range(30))
    lines = [f"{keys[index]},{index + 1}" for index in order]
    path = tmp_path_factory.getbasetemp() / "order.csv"
    path.write_text("\n".join(["name,weight" if by_name else "volume,weight", *lines]))
    np.testing.assert_array_equal(read_weights(path, names=names), np.arange(1, 31))


def test_csv_cells_are_texts(tmp_path):
    (tmp_path / "t.csv").write_text("name,weight\nNA,001\n,2\n")
    assert read_csv(tmp_path / "t.csv").to_numpy().tolist() == [["NA", "001"], ["", "2"]]


def test_absent_tables_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv: no such file"):
        read_weights(tmp_path / "absent.csv", names=NAMES)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"binary\.csv: cannot be read as CSV"):
        read_weights(tmp_path / "binary.csv", names=NAMES)


def test_a_comma_at_the_end_of_each_row_is_no_column(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("original_filename,custom_name\nvol_0.mrc,A,\nvol_1.mrc,B,\n")
    assert read_names(path, names=["vol_0", "vol_1"]) == ["A", "B"]
    path.write_text("original_filename,custom_name\nvol_0.mrc,A,x\nvol_1.mrc,B,\n")
    with pytest.raises(InputError, match="rows have more cells than the 2 columns named"):
        read_names(path, names=["vol_0", "vol_1"])


MAPS = ["run/vol_000", "run/vol_001", "run/vol_010"]


@pytest.mark.parametrize(
    "text",
    [
        "name,threshold\nrun/vol_000,0.1\nrun/vol_001,-2e-3\nrun/vol_010,3\n",
        "volume, Threshold\n2, 3\n0, 0.1\n1, -0.002\n",
        # As SIREn writes it: from a data frame with its index, which has no name.
        ",vol_id,denormalized_predictions\n0,10,3\n1,0,0.1\n2,1,-0.002\n",
        ",vol_id,denormalized_predictions\n0,010,3\n1,000,0.1\n2,001,-0.002\n",
        ",vol_id,predictions,denormalized_predictions\n"
        "0,vol_010.mrc,9,3\n1,vol_000.mrc,9,0.1\n2,vol_001.mrc,9,-0.002\n",
        "vol_id,denormalized_predictions\nvol_010,3\nvol_000,0.1\nvol_001,-0.002\nvol_099,7\n",
        "vol_id,denormalized_predictions\n 10 ,3\n0,0.1\n1,-0.002\n99,7\n",
        # Of two columns, the one that is named as ours is.
        "name,threshold,denormalized_predictions\nvol_000,0.1,8\nvol_001,-0.002,8\nvol_010,3,8\n",
    ],
)
def test_thresholds_are_found_by_name_number_or_the_end_of_a_name(tmp_path, text):
    found = read_thresholds(saved(tmp_path, text), names=MAPS)
    assert found.dtype == np.float64
    assert found.tolist() == [0.1, -0.002, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,level\nvol_000,1\n", "columns name,threshold or volume,threshold, found name,level"),
        ("threshold\n1\n", "expected the columns name,threshold"),
        (",vol_id,denormalized_predictions\n0,0,1\n1,1,1\n", "run/vol_010 is missing"),
        (",vol_id,denormalized_predictions\n0,0,1\n1,1,1\n2,1,1\n3,10,1\n",
         "run/vol_001 is there 2 times"),
        ("vol_id,denormalized_predictions\nvol_000,1\nvol_010,1\n", "run/vol_001 is missing"),
        ("name,threshold\nvol_000,1\nvol_001,1\n", "run/vol_010 is missing"),
        ("name,threshold\nvol_000,1\nvol_000,1\nvol_001,1\nvol_010,2\n", "is there 2 times"),
        ("volume,threshold\n0,1\n0,1\n1,1\n2,1\n", "volume 0 is there twice"),
        ("volume,threshold\n0,x\n1,\n2,1\n",
         "the threshold of run/vol_000 is 'x'; expected a number (and 1 more)"),
        ("vol_id,denormalized_predictions\n0,1\n1,nan\n10,1\n",
         "the denormalized_predictions of run/vol_001 is 'nan'; expected a number"),
        ("volume,threshold\n0,inf\n1,1\n2,1\n", "of run/vol_000 is 'inf'; expected a number"),
    ],
)  # fmt: skip
def test_faulty_thresholds_are_refused(tmp_path, text, message):
    with pytest.raises(InputError) as refused:
        read_thresholds(saved(tmp_path, text), names=MAPS)
    assert message in str(refused.value)
    assert "table.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_numbers_at_the_end_of_names_that_have_none_or_the_same(tmp_path):
    path = saved(tmp_path, "vol_id,denormalized_predictions\n0,1\n1,1\n")
    with pytest.raises(InputError, match="but closed ends in none; use a column name"):
        read_thresholds(path, names=["vol_0", "closed"])
    with pytest.raises(InputError, match="which a/vol_1 and b/vol_01 share; use a column name"):
        read_thresholds(path, names=["a/vol_1", "b/vol_01"])
    long = saved(tmp_path, f"vol_id,threshold\n{'1' * 5000},1\n")
    with pytest.raises(InputError, match="vol_1 is missing"):
        read_thresholds(long, names=["vol_1"])
