"""Pickles: arrays and plain containers come out, and no code is run on the way."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emhet_dask.errors import InputError
from emhet_dask.formats.pickles import load_pickle

in_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
protocols = st.integers(0, pickle.HIGHEST_PROTOCOL)
numbers = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.boolean_dtypes(),
)


def saved(folder: Path, *objects: object, protocol: int | None = None) -> Path:
    path = folder / "x.pkl"
    path.write_bytes(b"".join(pickle.dumps(thing, protocol) for thing in objects))
    return path


@in_folder
@given(hnp.arrays(numbers, hnp.array_shapes(min_dims=0, min_side=0)), protocols, st.booleans())
def test_arrays_come_back_equal(tmp_path, array, protocol, transposed):
    array = array.T if transposed else array
    loaded = load_pickle(saved(tmp_path, array, protocol=protocol))
    np.testing.assert_array_equal(loaded, array)
    assert loaded.shape == array.shape
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert np.asarray(loaded).flags.writeable


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@in_folder
@given(plain, protocols)
def test_plain_containers_come_back_equal(tmp_path, thing, protocol):
    assert load_pickle(saved(tmp_path, thing, protocol=protocol)) == thing


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_in_containers_and_numpy_numbers(tmp_path, protocol):
    shared = np.arange(3)
    thing = {
        "pair": (shared, shared),
        "ordered": OrderedDict(a=np.float32(1.5)),
        "set": {np.int64(3), 4},
        "text": np.array(["a", "bc"]),
    }
    loaded = load_pickle(saved(tmp_path, thing, protocol=protocol))
    np.testing.assert_array_equal(loaded["pair"][0], shared)
    assert loaded["pair"][0] is loaded["pair"][1]
    assert loaded["ordered"]["a"] == np.float32(1.5)
    assert loaded["set"] == {3, 4}
    assert list(loaded["text"]) == ["a", "bc"]


def test_an_array_that_python_2_pickled(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'i2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\x01\\x00\\xff\\xff'\ntb."
    )
    np.testing.assert_array_equal(load_pickle(path), np.array([1, -1], np.int16))


def test_pickles_one_after_the_other(tmp_path):
    path = saved(tmp_path, np.zeros(2), np.ones(2))
    np.testing.assert_array_equal(load_pickle(path), [0, 0])
    _, second = load_pickle(path, n=2)
    np.testing.assert_array_equal(second, [1, 1])
    with pytest.raises(InputError, match=r"x\.pkl: cannot be read as a pickle"):
        load_pickle(path, n=3)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (Path.touch, ()),
        (getattr, ("", "upper")),
        (np.load, ("{}",)),
        (np.fromfile, ("{}",)),
        (bytearray, (10,)),
    ],
)
def test_a_malicious_pickle_runs_nothing(tmp_path, function, arguments, protocol):
    canary = tmp_path / "canary"
    filled = [
        argument.format(canary) if isinstance(argument, str) else argument for argument in arguments
    ]
    thing = Call(function, *(filled or [canary]))
    for payload in (thing, [np.zeros(2), {"deep": (thing,)}]):
        path = saved(tmp_path, payload, protocol=protocol)
        with pytest.raises(InputError, match="only NumPy arrays of numbers and plain containers"):
            load_pickle(path)
    assert not canary.exists()


def test_the_message_names_the_file_and_what_it_asked_for(tmp_path):
    path = saved(tmp_path, Call(os.system, "true"))
    with pytest.raises(InputError, match=r"x\.pkl: asks for (posix|nt)\.system"):
        load_pickle(path)


def setting_attributes(target: bytes) -> bytes:
    """Return a program that pushes a global and sets an attribute on it, by BUILD."""
    return b"\x80\x02" + target + b"N}X\x08\x00\x00\x00__call__K\x01s\x86b."


@pytest.mark.parametrize(
    "program",
    [
        setting_attributes(b"cnumpy\ndtype\n"),
        setting_attributes(b"cnumpy.core.multiarray\n_reconstruct\n"),
        setting_attributes(b"cbuiltins\nlist\n"),
        b"\x80\x02cnumpy\ndtype\n.",  # the global itself
        b"\x80\x02cbuiltins\nlist\n.",
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R.",  # a dtype alone
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02Pouter\n.",
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R(K\x03X\x01\x00\x00\x00?tb.",
        b"\x80\x02K\x01Q.",
        b"PK\x03\x04torch",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"r\xff\xff\xff\x7f",
        b"\x80\x05\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"",
        b"text, not a pickle",
    ],
)  # fmt: skip
def test_crafted_programs_are_refused(tmp_path, program):
    path = tmp_path / "crafted.pkl"
    path.write_bytes(program)
    with pytest.raises(InputError, match=r"crafted\.pkl: (asks for|cannot be read)"):
        load_pickle(path)
    np.testing.assert_array_equal(load_pickle(saved(tmp_path, np.arange(3))), [0, 1, 2])


def test_shared_containers_do_not_multiply(tmp_path):
    nested: object = []
    for _ in range(60):
        nested = [nested, nested]  # 2^60 leaves, were they counted one by one
    assert len(load_pickle(saved(tmp_path, nested))) == 2


@pytest.mark.parametrize(
    "array",
    [np.array([{}, []], object), np.zeros(2, "f8,i4"), np.array(["2020-01-01"], "M8[D]")],
)
def test_arrays_of_objects_and_records_are_refused(tmp_path, array):
    with pytest.raises(InputError, match="asks for an array of dtype"):
        load_pickle(saved(tmp_path, array))


@in_folder
@given(st.data())
def test_a_damaged_pickle_raises_nothing_but_input_errors(tmp_path, data):
    path = saved(
        tmp_path,
        [np.arange(6.0).reshape(2, 3), {"a": np.float32(2)}],
        protocol=data.draw(protocols),
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        load_pickle(path)
        message = str(path)
    except InputError as error:
        message = str(error)
    assert message.startswith(str(path))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pkl: no such file"):
        load_pickle(tmp_path / "absent.pkl")


@pytest.mark.shared_data
def test_pickles_of_cryodrgn(shared_data):
    run = shared_data / "cryodrgn_run"
    mean, log_variance = load_pickle(run / "z.3.pkl", n=2)
    assert mean.shape == log_variance.shape == (6000, 4)
    assert mean.dtype == np.float32
    rotations, shifts = load_pickle(run / "pose.pkl")
    assert (rotations.shape, shifts.shape) == ((6000, 3, 3), (6000, 2))
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1),
        np.broadcast_to(np.eye(3), (6000, 3, 3)),
        atol=1e-6,
    )
    assert load_pickle(run / "analyze.3/umap.pkl").shape == (6000, 2)
    with pytest.raises(InputError, match="PyTorch archive"):
        load_pickle(run / "weights.3.pkl")
