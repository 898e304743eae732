from __future__ import annotations

import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emhet_dask.errors import InputError
from emhet_dask.formats.blocks_pickle import read_blocks_pickle, write_blocks_pickle

in_folder = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@in_folder
@given(
    labels=hnp.arrays(
        st.sampled_from([np.int16, np.int32, np.uint8, np.float32]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.integers(0, 6),
    )
)
def test_what_is_written_is_read_and_paints_the_same_labels(tmp_path, labels) -> None:
    path = tmp_path / "blocks.pkl"
    write_blocks_pickle(path, labels)
    blocks = read_blocks_pickle(path)
    assert sorted(blocks) == sorted(set(labels[labels > 0].astype(int).tolist()))
    painted = np.zeros(labels.size, dtype=int)
    for number, voxels in blocks.items():
        painted[voxels] = number
    np.testing.assert_array_equal(painted.reshape(labels.shape), labels)


def test_python_alone_can_read_it(tmp_path) -> None:
    labels = np.zeros((2, 3, 4), dtype=np.int32)
    labels[0, 0, 1] = labels[1, 2, 3] = 2
    labels[0, 1, 0] = 1
    path = tmp_path / "blocks.pkl"
    write_blocks_pickle(path, labels)
    content = path.read_bytes()
    # The dictionary and nothing else: no module is named, NumPy's neither.
    assert pickle.loads(content) == {1: [4], 2: [1, 23]}
    names = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ", "NEWOBJ"}


@pytest.mark.parametrize("values", [[5, 2], (5, 2), {5, 2}, np.array([5, 2], np.int32)])
def test_other_containers_of_indices_are_read(tmp_path, values) -> None:
    path = tmp_path / "blocks_dict_expand.pkl"
    path.write_bytes(pickle.dumps({np.int64(3): values, 0: []}))
    blocks = read_blocks_pickle(path)
    assert list(blocks) == [3, 0]
    np.testing.assert_array_equal(blocks[3], [2, 5])
    assert blocks[0].size == 0
    assert blocks[3].dtype == np.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a dictionary of blocks, found list"),
        ({"a": [1]}, "expected block numbers as keys, found 'a'"),
        ({True: [1]}, "expected block numbers as keys, found True"),
        ({1: [0.5]}, "block 1: expected indices of voxels"),
        ({1: [-1]}, "block 1: expected indices of voxels"),
        ({1: [[1, 2], [3]]}, "block 1: expected indices of voxels"),
        ({1: 7}, "block 1: expected indices of voxels"),
        ({1: {2: 3}}, "block 1: expected indices of voxels"),
        ({1: ["a"]}, "block 1: expected indices of voxels"),
    ],
)
def test_what_is_no_dictionary_of_indices_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "blocks.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_blocks_pickle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Harmful:
    def __reduce__(self):
        return (print, ("run",))


def test_code_in_the_file_is_not_run(tmp_path, capsys) -> None:
    path = tmp_path / "blocks.pkl"
    path.write_bytes(pickle.dumps({1: Harmful()}))
    with pytest.raises(InputError, match="could run code"):
        read_blocks_pickle(path)
    assert capsys.readouterr().out == ""
