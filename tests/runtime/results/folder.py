"""A results folder whose stages write what a test says."""

from emhet_dask.runtime.results import ResultsFolder

INPUTS = {"store": "abc"}
ALL = ["mask", "pca", "clusters", "report"]
FILES = [
    "clusters/labels.csv",
    "explore.ipynb",
    "mask.mrc",
    "pcs/pc1.mrc",
    "report.html",
    "results.zarr/pca/c",
    "results.zarr/zarr.json",
    "run.json",
]


class Folder:
    """A results folder in which a test runs stages that write what it says."""

    def __init__(self, path):
        self.path = path
        self.built = []

    def open(self, **options):
        return ResultsFolder.open(
            self.path, **{"command": "landscape", "inputs": INPUTS, **options}
        )

    def builder(self, name, files, facts=None):
        def build(workspace):
            self.built.append(name)
            for file, text in files.items():
                (workspace / file).parent.mkdir(parents=True, exist_ok=True)
                (workspace / file).write_text(text)
            return facts

        return build

    def run(self, *, mask=1, pca=20, clusters=2, **options):
        """Run mask → pca → clusters → report; return the names of the stages built."""
        self.built.clear()
        stages = (
            ("mask", {"threshold": mask}, {"mask.mrc": f"{mask}"}, None),
            (
                "pca",
                {"n_components": pca},
                {"results.zarr/pca/c": f"{pca}", "pcs/pc1.mrc": f"{pca}"},
                None,
            ),
            (
                "clusters",
                {"linkage": "ward", "k": clusters},
                {"clusters/labels.csv": f"{clusters}"},
                {"n_clusters": clusters},
            ),
            ("report", {}, {"report.html": f"{clusters}", "explore.ipynb": "report"}, None),
        )
        with self.open(**options) as results:
            after = ()
            for name, parameters, files, facts in stages:
                results.stage(
                    name,
                    parameters=parameters,
                    after=after,
                    build=self.builder(name, files, facts),
                    replaceable=name in {"clusters", "report"},
                    keep_as="clusters_{linkage}_{n_clusters}" if name == "clusters" else None,
                )
                after = (name,)
        return self.built[:]

    def run_stages(self, *stages, **options):
        """Run stages, each a name, parameters, and a builder; each after the one before."""
        with self.open(**options) as results:
            after = ()
            for name, parameters, build in stages:
                results.stage(
                    name, parameters=parameters, after=after, build=build, replaceable=True
                )
                after = (name,)

    def files(self):
        return sorted(
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        )

    def text(self, name):
        return (self.path / name).read_text()
