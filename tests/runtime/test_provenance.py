import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.runtime.provenance import (
    canonical_json,
    digest,
    fingerprint_file,
    fingerprint_values,
    plain,
    redact,
    versions,
)

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfi"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"s3://AKIA:{SECRET}@bucket/x.zarr", "s3://bucket/x.zarr"),
        (f"s3://bucket/x.zarr?X-Amz-Signature={SECRET}", "s3://bucket/x.zarr"),
        (f"https://h:9000/x#{SECRET}", "https://h:9000/x"),
        (f"https://{SECRET.replace('/', '')}@h/x", "https://h/x"),
        (f"a b s3://k:{SECRET}@c/d -o s3://k:{SECRET}@g/h", "a b s3://c/d -o s3://g/h"),
        ("s3://bucket/a@b.zarr", "s3://bucket/a@b.zarr"),
        ("http://h:9000/p@x", "http://h:9000/p@x"),
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("/data/me@home/map: 1?.mrc", "/data/me@home/map: 1?.mrc"),
    ],
)
def test_credentials_leave_urls_and_nothing_else_does(text, expected):
    assert redact(text) == expected


def test_values_of_every_kind_have_one_spelling():
    @dataclass
    class Options:
        box: int
        apix: np.float32

    value = {
        "path": Path("a/b"),
        "tuple": (1, np.int64(2)),
        "set": {3, 1},
        "options": Options(64, np.float32(1.5)),
        "url": f"s3://k:{SECRET}@b",
        "nan": math.nan,
        "flag": np.True_,
        "zero": np.array(0.5),
    }
    assert plain(value) == {
        "path": "a/b",
        "tuple": [1, 2],
        "set": [1, 3],
        "options": {"box": 64, "apix": 1.5},
        "url": "s3://b",
        "nan": "nan",
        "flag": True,
        "zero": 0.5,
    }


def test_an_array_is_not_recorded_by_accident():
    with pytest.raises(TypeError, match="a ndarray cannot be recorded"):
        plain({"mask": np.zeros(3)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_record_read_back_has_the_same_digest(value):
    assert digest(json.loads(canonical_json(value))) == digest(value)
    assert digest(dict(reversed(value.items()))) == digest(value)


def test_the_digest_is_that_of_the_canonical_text():
    assert canonical_json({"b": (1, 2.0), "a": "Å"}) == '{"a":"Å","b":[1,2.0]}'
    assert digest([1]) == hashlib.sha256(b"[1]").hexdigest()


def test_a_small_file_is_known_by_content_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"mask")
    assert fingerprint_file(tmp_path / "a") == fingerprint_file(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"mosk")
    assert fingerprint_file(tmp_path / "a") != fingerprint_file(tmp_path / "b")


def test_a_change_far_into_a_large_file_is_noticed(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(3 << 20))
    before = fingerprint_file(path)
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"x")
    os.utime(path, ns=(0, before["changed"] + 1))
    assert fingerprint_file(path) != before


def test_arrays_differ_by_values_shape_and_type():
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros.T, zeros.astype(np.int32), zeros.astype(">f4"), zeros + 1]
    assert len({fingerprint_values(array) for array in [zeros, *others]}) == 5
    assert fingerprint_values(zeros) == fingerprint_values(np.asfortranarray(zeros))


def test_versions_are_those_installed_and_need_no_imports():
    code = (
        "import sys; from emhet_dask.runtime.provenance import versions; v = versions();"
        "assert 'scipy' in v and 'scipy' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found = versions(("numpy", "no-such-package"))
    assert found == {"python": ".".join(map(str, sys.version_info[:3])), "numpy": np.__version__}
