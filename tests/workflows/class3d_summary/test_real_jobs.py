"""``emhet class3d summary`` on jobs that RELION wrote."""

import json

import numpy as np
import pandas as pd
import pytest

import emhet_dask


@pytest.fixture(scope="module")
def real(shared_data, client, tmp_path_factory):
    folder = shared_data / "relion_project/Class3D"
    return emhet_dask.class3d_summary(
        [folder / "job085", folder / "job086"],
        output=tmp_path_factory.mktemp("real") / "out",
        quiet=True,
        cluster=client,
    )


def test_tables_of_real_jobs(real):
    classes = pd.read_csv(real.folder / "classes.csv")
    assert len(classes) == 25 * 4 + 25 * 3
    assert list(classes)[:6] == [
        *("job", "iteration", "class", "distribution", "particles", "resolution_A"),
    ]
    last = classes[(classes["job"] == "job085") & (classes["iteration"] == 25)]
    assert last["distribution"].tolist() == [0.020973, 0.224776, 0.243750, 0.510500]
    np.testing.assert_allclose(last["particles"], 4000 * last["distribution"])
    assert last["resolution_A"].tolist() == [17.454545, 10.666667, 10.666667, 11.294118]
    assert last["assigned"].tolist() == [84, 899, 975, 2042]
    assert classes[classes["iteration"] < 25]["assigned"].isna().all()
    convergence = pd.read_csv(real.folder / "convergence.csv")
    assert convergence.groupby("job").size().to_dict() == {"job085": 25, "job086": 25}
    of_one = convergence[convergence["job"] == "job085"].set_index("iteration")
    changes = of_one["changes_classes"]
    assert changes[[1, 2, 5, 20, 23, 24, 25]].tolist() == [
        *(1.0, 0.317250, 0.163250, 0.00025, 0.0, 0.0, 0.00075),
    ]
    assert of_one.loc[12, ["log_likelihood", "average_pmax", "resolution_A"]].tolist() == [
        *(26621020.0, 0.999837, 12.8),
    ]
    assert of_one.loc[25, "run"] == "run_it025"
    assert of_one["changes_offsets_A"].eq(0).all()


def test_spectra_of_real_jobs(real):
    ssnr = pd.read_csv(real.folder / "ssnr.csv")
    assert len(ssnr) == 33 * (25 * 4 + 25 * 3)
    row = ssnr[(ssnr["job"] == "job085") & (ssnr["iteration"] == 25) & (ssnr["class"] == 2)]
    assert row.set_index("shell").loc[18, ["resolution_A", "ssnr"]].tolist() == [
        *(10.666667, 1.620833),
    ]


def test_verdicts_on_real_jobs(real):
    assert real.verdicts["job085"].words == "converged; class 1 collapsed"
    assert real.verdicts["job086"].words == "converged"
    facts = {
        facts["job"]: facts for facts in json.loads((real.folder / "verdicts.json").read_text())
    }
    found = facts["job085"]
    assert found["classes"]["recent"] == pytest.approx(0.00025)  # 0, 0 and 3 of 4,000
    assert found["collapsed_share"] == 0.025
    assert not found["aligned"]
    assert found["n_particles"] == 4000
    assert found["notes"] == []
    # Poses were drawn evenly; what class 1 has of them is few, and from few sides.
    assert all(found["coverage"][number]["sampling_factor"] > 0.95 for number in "234")
    assert found["coverage"]["1"]["poor"]
    said = real.describe()
    assert "of the angles that the job was given" in said
    assert "Class 1 holds 2.1% of the particles, less than 2.5%" in said


def test_page_of_real_jobs(real):
    page = (real.folder / "report.html").read_text()
    assert "2 classifications: 1 converged without objection" in page
    assert page.count("data:image/png;base64,") == 8
    assert {path.name for path in (real.folder / "figures").iterdir()} == {
        f"{job}_{name}.png"
        for job in ("job085", "job086")
        for name in ("convergence", "maps", "ssnr", "views")
    }
    run = json.loads((real.folder / "run.json").read_text())
    assert list(run["stages"]) == ["tables", "report"]
