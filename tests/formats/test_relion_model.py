"""Models and optimisers of RELION: real ones, and the labels of other versions."""

from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.relion import JobFolder
from emhet_dask.formats.relion_model import read_model, read_state, read_symmetry

OLD_MODEL = """
data_model_general

_rlnCurrentResolution 12.500000
_rlnPixelSize 2.500000
_rlnNrClasses 2
_rlnSigmaOffsets 3.000000
_rlnLogLikelihood 5.000000e+06
_rlnAveragePmax 0.750000

data_model_classes

loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
_rlnAccuracyRotations #3
_rlnAccuracyTranslations #4
_rlnEstimatedResolution #5
Class3D/job007/run_it003_class001.mrc 0.600000 1.250000 0.800000 12.500000
Class3D/job007/run_it003_class003.mrc 0.400000 999.000000 999.000000 inf

data_model_class_1

loop_
_rlnSpectralIndex #1
_rlnResolution #2
_rlnSsnrMap #3
0 0.000000 100.0
1 0.010000 50.0
2 0.020000 0.5

data_model_class_2

loop_
_rlnSpectralIndex #1
_rlnResolution #2
_rlnAngstromResolution #3
_rlnSsnrMap #4
0 0.000000 999.000000 10.0
1 0.010000 100.000000 5.0
"""
OLD_STATE = """
data_optimiser_general

_rlnCurrentIteration 3
_rlnNumberOfIterations 25
_rlnParticleDiameter 180.000000
_rlnOverallAccuracyRotations 1.250000
_rlnOverallAccuracyTranslations 0.800000
_rlnChangesOptimalOrientations 4.500000
_rlnChangesOptimalOffsets 1.200000
_rlnChangesOptimalClasses 0.125000
"""


def test_real_model(shared_data):
    folder = shared_data / "relion_project/Class3D/job085"
    model = read_model(folder / "run_it025_model.star")
    table = model.classes
    assert table["class"].tolist() == [1, 2, 3, 4]
    assert table["distribution"].tolist() == [0.020973, 0.224776, 0.243750, 0.510500]
    assert table["resolution_A"].tolist() == [17.454545, 10.666667, 10.666667, 11.294118]
    assert table["fourier_completeness"].tolist() == [0.823706, 0.978581, 0.938655, 0.999888]
    assert table["accuracy_rotations_deg"].isna().all()  # 0 in the file: not estimated
    assert not model.in_pixels
    assert (model.log_likelihood, model.average_pmax) == (33273210.0, 0.999924)
    assert (model.resolution_angstrom, model.voxel_size_angstrom) == (10.666667, 3.0)
    shells = model.shells
    assert shells.groupby("class").size().tolist() == [33] * 4
    first = shells[shells["class"] == 1].set_index("shell")
    assert first.loc[0].tolist() == [1.0, np.inf, 12859.245543]
    assert first.loc[11].tolist() == [1.0, 17.454545, 2.244684]
    # RELION's estimated resolution is the last shell whose SSNR is at least 1.
    for number, own in shells[shells["shell"] > 0].groupby("class"):
        falls = own["ssnr"].lt(1).to_numpy().argmax()
        estimated = table.set_index("class").loc[number, "resolution_A"]
        assert own["resolution_A"].iloc[falls - 1] == pytest.approx(estimated)


def test_real_optimiser_and_sampling(shared_data):
    folder = shared_data / "relion_project/Class3D/job085"
    state = read_state(folder / "run_it002_optimiser.star")
    assert (state.changes_classes, state.changes_offsets) == (0.317250, 0.0)
    assert (state.aligned, state.n_planned) == (False, 25)
    assert state.particle_diameter_angstrom == 170
    assert np.isnan(state.accuracy_rotations_deg)  # 999 in the file
    before = read_state(folder / "run_it000_optimiser.star")
    assert np.isnan([before.changes_classes, before.changes_orientations_deg]).all()
    assert read_symmetry(folder / "run_it001_sampling.star") == "C1"


def test_first_model_has_no_resolution_yet(shared_data):
    model = read_model(shared_data / "relion_project/Class3D/job085/run_it000_model.star")
    assert np.isnan([model.resolution_angstrom, model.average_pmax]).all()
    assert model.classes["distribution"].tolist() == [0.25] * 4


def test_relion_3_0_counts_translations_in_pixels(tmp_path):
    path = tmp_path / "run_it003_model.star"
    path.write_text(OLD_MODEL)
    model = read_model(path)
    assert model.in_pixels
    assert model.classes["class"].tolist() == [1, 3]  # as its maps are numbered
    assert model.classes["accuracy_translations_A"].tolist()[0] == pytest.approx(0.8 * 2.5)
    assert model.classes.loc[1].isna().tolist() == [False, False, True, True, True, True]
    assert model.shells["class"].tolist() == [1, 1, 1, 3, 3]
    assert model.shells["resolution_A"].tolist() == [np.inf, 100, 50, np.inf, 100]
    (tmp_path / "run_it003_optimiser.star").write_text(OLD_STATE)
    state = read_state(tmp_path / "run_it003_optimiser.star")
    assert (state.changes_classes, state.changes_offsets) == (0.125, 1.2)
    assert (state.aligned, state.accuracy_translations) == (True, 0.8)


def test_symmetry_without_a_word_is_c1(tmp_path):
    path = tmp_path / "sampling.star"
    path.write_text("data_sampling_general\n\n_rlnIs3DSampling 1\n")
    assert read_symmetry(path) == "C1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("_rlnClassDistribution #2", "_rlnShare #2"), "has no column _rlnClassDistribution"),
        (("run_it003_class001.mrc", "000001@run_it003_classes.mrcs"), "(of a 3D classification)"),
        ((" 0.600000", " -0.600000"), "class distributions of at least 0"),
        (("data_model_classes", "data_model_bodies"), "has no block data_model_classes"),
        (("\ndata_model_general", "\ndata_general"), "has no block data_model_general"),
        ((" 12.500000\nClass3D", "\nClass3D"), "is the file cut short?"),
    ],
)
def test_models_that_are_refused(tmp_path, change, message):
    path = tmp_path / "run_it003_model.star"
    path.write_text(OLD_MODEL.replace(*change))
    with pytest.raises(InputError) as refused:
        read_model(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_folder_tells_which_iterations_have_models_and_which_run_made_them(tmp_path):
    for name in (
        "run_it000_model",
        "run_it001_model",
        "run_it002_optimiser",
        "run_it003_model",
        "run_ct03_it004_model",
        "run_it004_model",
    ):
        (tmp_path / f"{name}.star").touch()
    job = JobFolder.open(tmp_path)
    assert job.modelled_iterations == [1, 3, 4]
    assert [job.continued_at(number) for number in (3, 4)] == [None, 3]
