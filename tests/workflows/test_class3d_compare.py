"""Comparing classifications: every table against pandas, every file against the truth."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from sklearn.metrics import adjusted_rand_score

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.star import read_particles, write_star
from emhet_dask.workflows.class3d_compare import class3d_compare

N = 600


def write_job(folder, labels, *, names=None, n_classes=None, pmax=None):
    folder.mkdir(parents=True)
    names = [f"{k + 1:06d}@stack.mrcs" for k in range(len(labels))] if names is None else names
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnVoltage": [300.0, 200.0]})
    particles = pd.DataFrame(
        {
            "rlnImageName": names,
            "rlnOpticsGroup": np.where(np.arange(len(labels)) < 30, 2, 1),
            "rlnClassNumber": labels,
        }
    )
    if pmax is not None:
        particles["rlnMaxValueProbDistribution"] = pmax
    blocks = {"optics": optics, "particles": particles}
    write_star(folder / "run_it025_data.star", blocks, version=30001)
    if n_classes:
        model = {"model_general": {"rlnNrClasses": n_classes}}
        write_star(folder / "run_it025_model.star", model)
    return str(folder)


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], N // 3)
    rng.shuffle(truth)

    def noisy(labels):
        return np.where(rng.random(N) < 0.1, rng.integers(1, 4, N), labels)

    return truth, [noisy(truth + 1), noisy(3 - truth), noisy(np.where(truth == 2, 1, truth) + 1)]


@pytest.fixture
def jobs(planted, tmp_path):
    """Three jobs; the second lacks 20 particles, in another order; the first has an empty class."""
    _, labels = planted
    order = np.random.default_rng(1).permutation(N)[20:]
    names = np.array([f"{k + 1:06d}@stack.mrcs" for k in range(N)])
    return [
        write_job(tmp_path / "Class3D" / "job085", labels[0], n_classes=4),
        write_job(tmp_path / "Class3D" / "job086", labels[1][order], names=names[order]),
        write_job(tmp_path / "Class3D" / "job101", labels[2]),
    ]


@pytest.fixture
def shared(planted):
    """Return the labels (job, particle) of the particles that all jobs have."""
    kept = np.sort(np.random.default_rng(1).permutation(N)[20:])
    return np.stack(planted[1])[:, kept], planted[0][kept], kept


NAMES = ["job085", "job086", "job101"]


def test_tables_equal_crosstab(jobs, shared, tmp_path):
    labels, _, _ = shared
    out = tmp_path / "out"
    result = class3d_compare(jobs, output=str(out), quiet=True)
    counts = pd.read_csv(out / "intersection_counts.csv", index_col=0)
    fractions = pd.read_csv(out / "intersection_fractions.csv", index_col=0)
    long = pd.read_csv(out / "counts_matrix.csv")
    shares = pd.read_csv(out / "fraction_matrix.csv")
    chance = pd.read_csv(out / "chance.csv")
    assert list(long) == list(shares) == ["job1", "job2", "class1", "class2", "value"]
    assert list(counts.index) == list(counts.columns) == list(fractions.columns)
    assert counts.index[:5].tolist() == [
        *(f"job085_class{k}" for k in range(1, 5)),
        "job086_class1",
    ]
    assert not (long["job1"] == long["job2"]).any()
    for i, one in enumerate(NAMES):
        for j, two in enumerate(NAMES):
            if i == j:
                own = [name for name in counts.index if name.startswith(one)]
                assert np.isnan(counts.loc[own, own].to_numpy()).all()
                continue
            oracle = pd.crosstab(labels[i], labels[j])
            normal = pd.crosstab(labels[i], labels[j], normalize="index")
            rows = long[(long["job1"] == one) & (long["job2"] == two)]
            for _, row in rows.iterrows():
                a, b = row["class1"], row["class2"]
                expected = oracle.loc[a, b] if a in oracle.index and b in oracle.columns else 0
                assert row["value"] == expected
                assert counts.loc[f"{one}_class{a}", f"{two}_class{b}"] == expected
            for a in normal.index:
                for b in normal.columns:
                    expected = normal.loc[a, b]
                    assert fractions.loc[f"{one}_class{a}", f"{two}_class{b}"] == pytest.approx(
                        expected
                    )
                    row = chance.query(
                        "job1 == @one and job2 == @two and class1 == @a and class2 == @b"
                    )
                    assert row["fraction"].item() == pytest.approx(expected)
                    assert row["expected_fraction"].item() == pytest.approx((labels[j] == b).mean())
    sankey = pd.read_csv(out / "pysankey_input.csv")
    assert list(sankey) == ["id", "jobANo_class", "jobBNo_class", "#particles"]
    assert sankey["#particles"].sum() == 3 * labels.shape[1]
    assert result.agreement["adjusted_rand_index"].tolist() == pytest.approx(
        [adjusted_rand_score(labels[i], labels[j]) for i, j in [(0, 1), (0, 2), (1, 2)]]
    )
    assert (result.agreement["p_value"] == 0.001).all()
    pairs = pd.read_csv(out / "correspondence.csv").query("job1 == 'job085' and job2 == 'job086'")
    assert dict(zip(pairs["class1"], pairs["class2"], strict=True)) == {1: 3, 2: 2, 3: 1}


def test_files_of_particles(jobs, shared, planted, tmp_path):
    labels, truth, kept = shared
    out = tmp_path / "out"
    result = class3d_compare(jobs, output=str(out), quiet=True)
    names = np.array([f"{k + 1:06d}@stack.mrcs" for k in range(N)])

    def of(path):
        return read_particles(path).particles["rlnImageName"].tolist()

    whole = planted[1][0]
    assert of(out / "per_class_star" / "job085_class1.star") == names[whole == 1].tolist()
    assert not (out / "per_class_star" / "job085_class4.star").exists()
    both = kept[(labels[0] == 1) & (labels[1] == 3)]
    path = out / "intersections" / "job085_class1_vs_job086_class3.star"
    assert of(path) == names[both].tolist()
    assert len(list((out / "intersections").iterdir())) == sum(
        len(np.unique(labels[[i, j]], axis=1).T) for i, j in [(0, 1), (0, 2), (1, 2)]
    )
    late = out / "per_class_star" / "job101_class1.star"
    assert list(starfile.read(late)["optics"]["rlnOpticsGroup"]) == [1, 2]
    assert b"\r" not in late.read_bytes()
    table = pd.read_csv(out / "consensus.csv")
    assert list(table) == ["rlnImageName", "consensus", "confidence"]
    assert table["rlnImageName"].tolist() == names[kept].tolist()
    assert adjusted_rand_score(truth, table["consensus"]) > 0.9
    assert table["confidence"].between(0, 1).all()
    for number in range(1, 4):
        chosen = table.query("consensus == @number")
        path = out / "consensus_star" / f"class_{number}.star"
        assert of(path) == chosen["rlnImageName"].tolist()
        core = chosen[chosen["confidence"] >= 0.9]
        path = out / "consensus_core" / f"class_{number}.star"
        assert of(path) == core["rlnImageName"].tolist()
    tuples = pd.read_csv(out / "tuples.csv")
    assert tuples["particles"].sum() == len(kept)
    said = result.describe()
    assert "3 consensus classes" in said
    assert "not in every job: 20 of the 600 particles of job085" in said
    assert "20 of the 600 particles of job085" in (out / "report.html").read_text()


def test_optics_groups_that_are_not_used_go(tmp_path):
    labels = np.repeat([1, 2], 100)
    one = write_job(tmp_path / "a", labels)
    two = write_job(tmp_path / "b", labels)
    found = class3d_compare([one, two], output=str(tmp_path / "out"), quiet=True)
    assert "only one of them makes cannot be confirmed" in found.describe()
    path = tmp_path / "out" / "intersections" / "a_class2_vs_b_class2.star"
    assert read_particles(path).optics["rlnOpticsGroup"].tolist() == [1]


def test_same_command_again_and_another_number_of_classes(jobs, tmp_path, capsys):
    out = str(tmp_path / "out")
    class3d_compare(jobs, output=out)
    before = json.loads((tmp_path / "out" / "run.json").read_text())
    capsys.readouterr()
    class3d_compare(jobs, output=out)
    assert capsys.readouterr().err.count("done before") == 5
    assert json.loads((tmp_path / "out" / "run.json").read_text())["stages"] == before["stages"]
    result = class3d_compare(jobs, output=out, n_consensus=2)
    said = capsys.readouterr().err
    assert "tables: done before" in said
    assert "class files: done before" in said
    assert result.consensus.n_classes == 2
    assert not (tmp_path / "out" / "consensus_star" / "class_3.star").exists()
    # No files are left that are of another consensus than the table.
    class3d_compare(jobs, output=out, n_consensus=3, no_star=True, quiet=True)
    assert not list((tmp_path / "out").glob("consensus_star/*"))
    assert (tmp_path / "out" / "per_class_star" / "job085_class1.star").is_file()
    with pytest.raises(InputError, match="other input"):
        class3d_compare(jobs[:2], output=out, quiet=True)


def test_jobs_of_a_project(jobs, tmp_path):
    out = tmp_path / "out"
    result = class3d_compare(
        project=str(tmp_path), jobs="85,101", output=str(out), no_star=True, quiet=True
    )
    assert result.names == ("job085", "job101")
    assert not (out / "per_class_star").exists()
    assert not (out / "consensus_star").exists()
    with pytest.raises(InputError, match=r"no folder \*/job099"):
        class3d_compare(project=str(tmp_path), jobs="85,99", output=str(out), quiet=True)
    with pytest.raises(InputError, match="--project: goes with --jobs"):
        class3d_compare(jobs[:2], project=str(tmp_path), output=str(out), quiet=True)


def test_copies_after_symmetry_expansion(tmp_path):
    names = [f"{k // 2 + 1:06d}@stack.mrcs" for k in range(200)]
    labels = np.repeat([1, 2], 100)
    one = write_job(tmp_path / "a", labels, names=names)
    two = write_job(tmp_path / "b", labels, names=names)
    class3d_compare([one, two], output=str(tmp_path / "out"), quiet=True)
    table = pd.read_csv(tmp_path / "out" / "consensus.csv")
    assert list(table) == ["rlnImageName", "copy", "consensus", "confidence"]
    assert table["copy"].tolist() == [0, 1] * 100


def test_equal_names_are_told_apart(tmp_path):
    labels = np.repeat([1, 2], 100)
    one = write_job(tmp_path / "first" / "job001", labels)
    two = write_job(tmp_path / "second" / "job001", labels)
    result = class3d_compare([one, two], output=str(tmp_path / "out"), no_star=True, quiet=True)
    assert result.names == ("first_job001", "second_job001")


def test_cryosparc_files(tmp_path):
    rng = np.random.default_rng(0)
    kind = [("uid", "<u8"), ("alignments3D_multi/class_posterior", "<f4", (2,))]
    truth = rng.integers(0, 2, 200)
    paths = []
    for name in ("J1", "J2"):
        records = np.zeros(200, dtype=kind)
        records["uid"] = np.arange(200) + 2**62
        records["alignments3D_multi/class_posterior"] = np.eye(2)[truth] * 0.8 + 0.1
        path = tmp_path / f"{name}.cs"
        with path.open("wb") as file:
            np.save(file, records)
        paths.append(str(path))
    class3d_compare(paths, output=str(tmp_path / "out"), quiet=True)
    table = pd.read_csv(tmp_path / "out" / "consensus.csv", dtype={"uid": np.uint64})
    assert list(table) == ["uid", "consensus", "confidence"]
    assert table["uid"].tolist() == records["uid"].tolist()
    assert adjusted_rand_score(truth, table["consensus"]) == 1.0
    assert (tmp_path / "out" / "per_class_star" / "J1_class0.cs").is_file()
    assert (tmp_path / "out" / "consensus_star" / "class_1.cs").is_file()


def test_maps_of_other_boxes_are_not_compared(tmp_path):
    labels = np.repeat([1, 2], 100)
    jobs = [write_job(tmp_path / name, labels) for name in "abc"]
    density = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    for name, box in (("a", 16), ("b", 12), ("c", 16)):
        path = tmp_path / name / "run_it025_class001.mrc"
        write_map(path, density[:box, :box, :box], voxel_size_angstrom=3.0)
        path = tmp_path / name / "run_it025_class002.mrc"
        write_map(path, np.zeros((box,) * 3, np.float32), voxel_size_angstrom=3.0)
    class3d_compare(jobs, output=str(tmp_path / "out"), no_star=True, quiet=True)
    table = pd.read_csv(tmp_path / "out" / "correspondence.csv")
    known = table[table["map_correlation"].notna()]
    assert known[["job1", "job2", "class1"]].to_numpy().tolist() == [["a", "c", 1]]
    assert known["map_correlation"].item() == pytest.approx(1.0)


def test_what_cannot_be_compared(jobs, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(InputError, match="JOB: found 1, expected two or more"):
        class3d_compare(jobs[:1], output=out, quiet=True)
    for same in (jobs[0] + "/", str(next(Path(jobs[0]).glob("*_data.star")))):
        with pytest.raises(InputError, match="are the same classification"):
            class3d_compare([jobs[0], same], output=out, quiet=True)
    with pytest.raises(InputError, match="--n-consensus: found 9, but the jobs tell apart"):
        class3d_compare(jobs, output=out, n_consensus=9, quiet=True)
    other = write_job(tmp_path / "other", [1, 2], names=["1@x.mrcs", "2@x.mrcs"])
    with pytest.raises(InputError, match="no particle in common"):
        class3d_compare([jobs[0], other], output=out, quiet=True)


@pytest.mark.shared_data
def test_two_jobs_of_relion_find_the_planted_states(shared_data, tmp_path):
    project = shared_data / "relion_project"
    result = class3d_compare(
        project=str(project), jobs=[85, 86], output=str(tmp_path / "out"), quiet=True
    )
    table = pd.read_csv(tmp_path / "out" / "consensus.csv")
    row = table["rlnImageName"].str.split("@").str[0].astype(int) - 1
    truth = pd.read_csv(project / "Extract" / "truth.csv")["source_volume"].to_numpy()[row]
    assert result.consensus.n_classes == 4
    assert adjusted_rand_score(truth, table["consensus"]) > 0.99
    core = table["confidence"] >= 0.9
    assert adjusted_rand_score(truth[core], table["consensus"][core]) == 1.0
