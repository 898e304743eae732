"""The tables of ``emhet class3d compare``: intersections, agreement, correspondence, consensus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.agreement import agreement_of
from emhet_dask.analysis.consensus import Consensus, consensus
from emhet_dask.analysis.crosstabs import PairTable, best_correspondence, pair_tables
from emhet_dask.errors import InputError
from emhet_dask.runtime import ResultsFolder
from emhet_dask.workflows.stages.class_compare_jobs import ComparedJobs

__all__ = ["CompareTables", "class_label", "compare_tables_stage", "consensus_stage"]

_TABLES = "tables"
_CONSENSUS = "consensus"
# Of the classes of a job that a consensus class is made of, so many are named, from such a share.
_MOST_NAMED = 4
_LEAST_NAMED = 0.05


@dataclass(frozen=True, eq=False)
class CompareTables:
    """What the comparison found.

    Attributes
    ----------
    pairs : list of PairTable
        Of all pairs of jobs.
    agreement : DataFrame
        A row per pair of jobs: ``job1, job2, adjusted_rand_index, …``.
    correspondence : DataFrame
        A row per pair of classes that correspond.
    chance : DataFrame
        A row per pair of classes: count and fraction beside what chance would give.
    """

    pairs: list[PairTable]
    agreement: pd.DataFrame
    correspondence: pd.DataFrame
    chance: pd.DataFrame


def class_label(job: str, number: int) -> str:
    """Return what a class is called in tables and file names, such as ``job085_class1``."""
    return f"{job}_class{number}"


def compare_tables_stage(
    compared: ComparedJobs, *, seed: int, results: ResultsFolder
) -> CompareTables:
    """Run the stage ``tables``, or find it done."""

    def build(workspace: Path) -> dict[str, Any]:
        pairs = pair_tables(compared.labels, classes=compared.classes)
        chance = _chance(compared, pairs)
        counts = chance[["job1", "job2", "class1", "class2"]].assign(value=chance["count"])
        fractions = chance[["job1", "job2", "class1", "class2"]].assign(value=chance["fraction"])
        _wide(compared, counts).astype("Int64").to_csv(workspace / "intersection_counts.csv")
        _wide(compared, fractions).to_csv(workspace / "intersection_fractions.csv")
        counts.to_csv(workspace / "counts_matrix.csv", index=False)
        fractions.to_csv(workspace / "fraction_matrix.csv", index=False)
        chance.to_csv(workspace / "chance.csv", index=False)
        _pysankey(compared, chance).to_csv(workspace / "pysankey_input.csv", index=False)
        _agreement(compared, pairs, seed=seed).to_csv(workspace / "agreement.csv", index=False)
        _correspondence(compared, pairs).to_csv(workspace / "correspondence.csv", index=False)
        return {
            "particles": compared.matched.n_particles,
            "not_in_every_job": dict(
                zip(compared.names, compared.matched.n_unmatched, strict=True)
            ),
        }

    results.stage(_TABLES, parameters={"seed": seed}, build=build)
    text = {"job1": str, "job2": str}
    return CompareTables(
        pairs=pair_tables(compared.labels, classes=compared.classes),
        agreement=pd.read_csv(results.path("agreement.csv"), dtype=text),
        correspondence=pd.read_csv(results.path("correspondence.csv"), dtype=text),
        chance=pd.read_csv(results.path("chance.csv"), dtype=text),
    )


def consensus_stage(
    compared: ComparedJobs,
    *,
    n_consensus: int | str,
    min_size: int | None,
    results: ResultsFolder,
) -> Consensus:
    """Run the stage ``consensus``, or find it done.

    Raises
    ------
    InputError
        When the jobs do not tell apart so many classes.
    """
    found = _consensus(compared, n_consensus, min_size)

    def build(workspace: Path) -> dict[str, Any]:
        _particles(compared, found).to_csv(workspace / "consensus.csv", index=False)
        _classes(compared, found).to_csv(workspace / "consensus_classes.csv", index=False)
        _tuples(compared, found).to_csv(workspace / "tuples.csv", index=False)
        return {
            "classes": found.n_classes,
            "min_size": found.min_size,
            "unresolved": int(np.count_nonzero(found.labels == 0)),
            "core": int(np.count_nonzero(found.core)),
            "weight_of_job": {
                name: round(float(weight), 4)
                for name, weight in zip(compared.names, found.job_weight, strict=True)
            },
        }

    results.stage(
        _CONSENSUS,
        parameters={"n_consensus": n_consensus, "min_size": min_size},
        build=build,
        replaceable=True,
    )
    return found


def _consensus(compared: ComparedJobs, n_consensus: int | str, min_size: int | None) -> Consensus:
    try:
        return consensus(
            compared.labels,
            n_classes=None if isinstance(n_consensus, str) else n_consensus,
            min_size=min_size,
            classes=compared.classes,
            pmax=compared.pmax,
            map_similarity=compared.map_similarity,
        )
    except InputError as error:
        text = str(error).replace("n_classes", "--n-consensus").replace("min_size", "--min-size")
        raise InputError(text) from None


def _chance(compared: ComparedJobs, pairs: list[PairTable]) -> pd.DataFrame:
    """Return a row per ordered pair of classes of different jobs."""
    rows = []
    for table in pairs:
        turned = PairTable(table.second, table.first, table.counts.T)
        for each in (table, turned):
            first, second = compared.classes[each.first], compared.classes[each.second]
            n_particles = max(int(each.counts.sum()), 1)
            rows.append(
                pd.DataFrame(
                    {
                        "job1": compared.names[each.first],
                        "job2": compared.names[each.second],
                        "class1": np.repeat(first, len(second)),
                        "class2": np.tile(second, len(first)),
                        "count": each.counts.ravel(),
                        "expected": each.expected.ravel(),
                        "fraction": each.of_first.ravel(),
                        "expected_fraction": np.tile(
                            each.counts.sum(axis=0) / n_particles, len(first)
                        ),
                        "residual": each.residual.ravel(),
                    }
                )
            )
    order = {name: rank for rank, name in enumerate(compared.names)}
    table_of_all = pd.concat(rows, ignore_index=True)
    keys = pd.DataFrame(
        {"one": table_of_all["job1"].map(order), "two": table_of_all["job2"].map(order)}
    )
    in_order = keys.sort_values(["one", "two"], kind="stable").index
    return table_of_all.loc[in_order].reset_index(drop=True)


def _wide(compared: ComparedJobs, long: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row and a column per class; empty between classes of one job."""
    names = [
        class_label(name, number)
        for name, classes in zip(compared.names, compared.classes, strict=True)
        for number in classes
    ]
    place = {name: row for row, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    one = [class_label(*each) for each in zip(long["job1"], long["class1"], strict=True)]
    two = [class_label(*each) for each in zip(long["job2"], long["class2"], strict=True)]
    values[[place[name] for name in one], [place[name] for name in two]] = long["value"]
    return pd.DataFrame(values, index=names, columns=names)


def _pysankey(compared: ComparedJobs, chance: pd.DataFrame) -> pd.DataFrame:
    """Return each pair once, under the names of columns that the published script writes."""
    rank = {name: number for number, name in enumerate(compared.names)}
    once = chance[chance["job1"].map(rank) < chance["job2"].map(rank)]
    return pd.DataFrame(
        {
            "id": np.arange(len(once)),
            "jobANo_class": [
                class_label(*each) for each in zip(once["job1"], once["class1"], strict=True)
            ],
            "jobBNo_class": [
                class_label(*each) for each in zip(once["job2"], once["class2"], strict=True)
            ],
            "#particles": once["count"].to_numpy(),
        }
    )


def _agreement(compared: ComparedJobs, pairs: list[PairTable], *, seed: int) -> pd.DataFrame:
    rows = []
    for table in pairs:
        found = agreement_of(table.counts, seed=seed)
        names = {"job1": compared.names[table.first], "job2": compared.names[table.second]}
        rows.append({**names, "particles": int(table.counts.sum()), **found._asdict()})
    return pd.DataFrame(rows)


def _correspondence(compared: ComparedJobs, pairs: list[PairTable]) -> pd.DataFrame:
    starts = np.cumsum([0, *(len(each) for each in compared.classes)])
    rows = []
    for table in pairs:
        one, two = compared.classes[table.first], compared.classes[table.second]
        of_first, of_second = table.of_first, table.of_second
        for i, j in best_correspondence(table.counts):
            union = table.counts[i].sum() + table.counts[:, j].sum() - table.counts[i, j]
            rows.append(
                {
                    "job1": compared.names[table.first],
                    "class1": one[i],
                    "job2": compared.names[table.second],
                    "class2": two[j],
                    "count": int(table.counts[i, j]),
                    "fraction_of_class1": of_first[i, j],
                    "fraction_of_class2": of_second[j, i],
                    "jaccard": table.counts[i, j] / union,
                    "map_correlation": compared.map_correlation[
                        starts[table.first] + i, starts[table.second] + j
                    ],
                }
            )
    return pd.DataFrame(rows)


def _particles(compared: ComparedJobs, found: Consensus) -> pd.DataFrame:
    first = compared.jobs[0]
    rows = compared.matched.rows[0]
    column = _identity_column(compared)
    identity = first.identity  # made anew at each access
    table = {column: identity.names[rows]}
    copies = identity.copies[rows]
    if copies.any():
        table["copy"] = copies
    return pd.DataFrame(
        {**table, "consensus": found.labels, "confidence": np.round(found.confidence, 4)}
    )


def _identity_column(compared: ComparedJobs) -> str:
    particles = compared.jobs[0].particles
    if isinstance(particles, np.ndarray):
        return "uid"
    known = particles.particles.columns
    return "rlnImageName" if "rlnImageName" in known else "rlnTomoParticleName"


def _classes(compared: ComparedJobs, found: Consensus) -> pd.DataFrame:
    """Return a row per consensus class, and one for what is unresolved."""
    rows = []
    for number in [*range(1, found.n_classes + 1), 0]:
        inside = found.labels == number
        count = int(np.count_nonzero(inside))
        row: dict[str, Any] = {
            "consensus": number,
            "particles": count,
            "fraction": count / len(inside),
            "core": int(np.count_nonzero(found.core & inside)),
            "mean_confidence": float(found.confidence[inside].mean()) if count else float("nan"),
        }
        for name, label in zip(compared.names, compared.labels, strict=True):
            values, counts = np.unique(label[inside], return_counts=True)
            order = np.argsort(-counts, kind="stable")
            row[name] = ", ".join(
                f"{values[k]} ({counts[k] / count:.0%})" for k in order if counts[k] >= 0.05 * count
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _tuples(compared: ComparedJobs, found: Consensus) -> pd.DataFrame:
    """Return the distinct combinations of classes, the most frequent first."""
    table = pd.DataFrame(found.tuple_labels, columns=list(compared.names))
    table["particles"] = found.tuple_size
    # Pmax may divide a combination; its consensus class is the one that most of it is in.
    n_labels = found.n_classes + 1
    cells = np.bincount(
        found.tuple_of_particle * n_labels + found.labels, minlength=len(table) * n_labels
    )
    table["consensus"] = cells.reshape(len(table), n_labels).argmax(axis=1)
    mean = np.bincount(found.tuple_of_particle, found.confidence) / found.tuple_size
    table["confidence"] = np.round(mean, 4)
    return table
