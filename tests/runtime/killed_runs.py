"""Kill a run before each of its changes to the file system, and look at what it leaves.

Run by results/test_faults.py as ``python killed_runs.py FOLDER SCENARIO STRIDE``: in a process of
its own, since it forks. Prints how many kills were survived; fails at the first that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from killing import in_child, killed_before_change

from emhet_dask.runtime import lock
from emhet_dask.runtime.record import read_run
from emhet_dask.runtime.results import ResultsFolder

ORDER = ("mask", "pca", "clusters", "report")
BASE = {"pca": 20, "clusters": 2}
SCENARIOS = {
    "first": {"before": None, "now": BASE},
    "recut": {"before": BASE, "now": {"pca": 20, "clusters": 3}},
    "overwrite": {"before": BASE, "now": {"pca": 10, "clusters": 2}},
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def command(out: Path, *, pca: int, clusters: int, overwrite: bool = False) -> list[str]:
    """Run four stages whose files tell what they were made with; return the stages built."""
    built: list[str] = []
    upstream: list[str] = []

    def stage(name: str, value: int, files: tuple[str, ...], **options: object) -> None:
        upstream.append(f"{name}={value}")
        text = " ".join(upstream)

        def build(workspace: Path) -> None:
            built.append(name)
            for file in files:
                write(workspace / file, text)

        results.stage(name, parameters={"value": value}, build=build, **options)

    with ResultsFolder.open(
        out, command="test", inputs={"store": "abc"}, overwrite=overwrite
    ) as results:
        stage("mask", 1, ("mask.mrc", "results.zarr/mask/zarr.json", "results.zarr/mask/c/0"))
        stage(
            "pca",
            pca,
            ("results.zarr/pca/zarr.json", "pcs/pc1/a.mrc", f"pcs/pc1/only{pca}.mrc"),
            after=("mask",),
        )
        stage(
            "clusters",
            clusters,
            (f"clusters/only{clusters}.mrc", "clusters/labels.csv", "results.zarr/clusters/c"),
            after=("pca",),
            replaceable=True,
            keep_as="clusters_{value}",
        )
        stage(
            "report",
            0,
            ("report.html", "clusters/sheet.png"),
            after=("clusters",),
            replaceable=True,
        )
    return built


def files_under(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): path.read_text()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def check_record(out: Path) -> dict[str, str]:
    """All that is recorded is there, whole, and made with what the record says; return the keys."""
    if not (out / "run.json").exists():
        return {}
    stages = read_run(out).stages
    for name, record in stages.items():
        assert not record.missing(), (name, record.missing())
        assert set(record.after) <= set(stages), (name, list(stages))
        values = [f"{n}={stages[n].parameters['value']}" for n in ORDER if n in stages]
        for file in record.files:
            paths = [out / file] if not file.endswith("/") else list((out / file).rglob("*"))
            for path in paths:
                assert path.is_dir() or " ".join(values).startswith(path.read_text()), path
    return {name: record.key for name, record in stages.items()}


def fresh(out: Path, before: Path | None) -> None:
    shutil.rmtree(out, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, out)


def main(folder: Path, scenario: str, stride: int) -> None:
    # A killed process loses nothing that it has written, so that syncing would only take time.
    os.fsync = lambda _: None
    lock.SETTLE_SECONDS = lock.UNWRITTEN_SECONDS = 0.0
    settings = SCENARIOS[scenario]
    now = {**settings["now"], "overwrite": scenario == "overwrite"}
    before = None
    if settings["before"] is not None:
        before = folder / "before"
        command(before, **settings["before"])
    undisturbed, out, log = folder / "undisturbed", folder / "out", folder / "log"
    fresh(undisturbed, before)
    command(undisturbed, **now)
    expected_files, expected_keys = files_under(undisturbed), check_record(undisturbed)
    killed = 0
    while True:
        fresh(out, before)
        if not killed_before_change(killed * stride, out, lambda: command(out, **now)):
            break
        recorded = check_record(out)
        assert in_child(lambda: log.write_text(json.dumps(command(out, **now)))) == 0
        finished = {name for name, key in recorded.items() if key == expected_keys[name]}
        redone = finished & set(json.loads(log.read_text()))
        assert not redone, (killed, redone)
        assert files_under(out) == expected_files, (killed, sorted(files_under(out)))
        assert check_record(out) == expected_keys, killed
        assert command(out, **now) == [], killed
        killed += 1
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
