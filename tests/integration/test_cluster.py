"""Detection on a cluster: other processes, other hosts, encrypted connections."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys

import dask
import numpy as np
import pytest
from distributed import Client
from support.cluster import SOURCE, Cluster
from support.stubs import paint, tiny_model, write_scene

from geo_retina.detector import detect, detect_to_file
from geo_retina.errors import RunError
from geo_retina.options import DetectOptions, RunOptions
from geo_retina.vector import read_detections, read_metadata

# An untrained network finds more in a tile than its limit.
pytestmark = pytest.mark.filterwarnings("ignore:.* tiles reached a limit:UserWarning")

OPTIONS = DetectOptions(tile_px=96, score=0.005, max_per_tile=20, precision="fp32")
RUN = RunOptions(device="cpu", block_px=128, threads=1)
BOXES = np.array([[10, 12, 30, 22], [100, 100, 108, 130], [250, 40, 270, 48]])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "a.tif", paint((300, 400), BOXES))


def test_encrypted_connections_are_as_dask_is_told(tmp_path, scene):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    flags = ["--tls-ca-file", str(cert), "--tls-cert", str(cert), "--tls-key", str(key)]
    cluster = Cluster(tmp_path, protocol="tls", flags=flags)
    cluster.start_scheduler()
    cluster.start_worker()
    run = RunOptions(device="cpu", block_px=128, scheduler=cluster.address)
    import distributed  # noqa: F401 - it brings its own settings, which must lie below ours

    told = {"ca-file": cert, "client.cert": cert, "client.key": key}
    try:
        with dask.config.set({f"distributed.comm.tls.{name}": str(p) for name, p in told.items()}):
            remote = detect(scene, tiny_model(), OPTIONS, run)
    finally:
        cluster.stop()
    assert remote.equals(detect(scene, tiny_model(), OPTIONS, RUN))


def test_what_auto_stands_for_is_asked_of_the_workers(tmp_path, scene):
    cluster = Cluster(tmp_path)
    cluster.start_scheduler()
    far = RunOptions(device="cpu", block_px=128, scheduler=cluster.address, patience_s=1)
    options = dataclasses.replace(OPTIONS, precision="auto")
    try:
        with pytest.raises(RunError, match="no worker was connected to the scheduler for 1 s"):
            detect(scene, tiny_model(), options, far)
        cluster.start_worker()
        far = dataclasses.replace(far, patience_s=120)
        out = tmp_path / "far.gpkg"
        detect_to_file(scene, tiny_model(), out, options, far)
        here = detect(scene, tiny_model(), options, RUN)
    finally:
        cluster.stop()
    found, metadata = read_detections(out), read_metadata(out)
    assert metadata["precision"] in ("bf16", "fp32")
    assert metadata["runtime"] == "torch"
    assert len(found) == len(here) > 0


@pytest.mark.parametrize("has_worker", [True, False])
def test_a_cluster_without_the_package_is_one_sentence(tmp_path, scene, monkeypatch, has_worker):
    import support.cluster

    monkeypatch.setattr(support.cluster, "SOURCE", tmp_path)
    (tmp_path / "geo_retina").mkdir()  # another package of that name, which hides ours
    (tmp_path / "geo_retina" / "__init__.py").write_text("")
    cluster = Cluster(tmp_path)
    cluster.start_scheduler()
    run = RunOptions(device="cpu", scheduler=cluster.address, patience_s=60)
    try:
        if has_worker:
            cluster.start_worker()
            with Client(cluster.address, timeout=60) as client:
                client.wait_for_workers(1, timeout=60)
        with pytest.raises(RunError, match="install this version of geo-retina") as raised:
            detect(scene, tiny_model(), OPTIONS, run)
    finally:
        cluster.stop()
    assert "scheduler at" in str(raised.value) or has_worker
    assert "\n" not in str(raised.value)


@pytest.fixture
def two_hosts():
    """Two network namespaces joined by a cable, which nothing outside can reach."""
    names = [f"gr{os.getpid()}{side}" for side in "ab"]
    cable = [f"gr{os.getpid() % 10_000}{side}" for side in "ab"]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True)
        if done.returncode:
            raise OSError(done.stderr.decode())

    if shutil.which("ip") is None:
        pytest.skip("ip is not installed, which makes network namespaces")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for i, (name, end) in enumerate(zip(names, cable, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.231.7.{i}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except OSError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_workers_on_another_host(tmp_path, scene, two_hosts):
    here, there = ([*("ip", "netns", "exec"), name] for name in two_hosts)
    weights = tiny_model().save(tmp_path / "m.safetensors")
    cluster = Cluster(tmp_path, host="10.231.7.1", inside=(here, there))
    cluster.start_scheduler()
    cluster.start_worker("10.231.7.2")
    flags = "--tile-px 96 --score 0.005 --max-per-tile 20 --precision fp32 --device cpu"
    out = tmp_path / "remote.gpkg"
    command = [
        sys.executable,
        "-c",
        "import sys; from geo_retina.cli import main; sys.exit(main())",
    ]
    command += ["detect", str(scene), "--model", str(weights), "--out", str(out), *flags.split()]
    try:
        done = subprocess.run(
            [*here, *command, "--scheduler", cluster.address, "--block-px", "128"],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    finally:
        cluster.stop()
    detect_to_file(scene, weights, tmp_path / "local.gpkg", OPTIONS, RUN)
    local, remote = read_detections(tmp_path / "local.gpkg"), read_detections(out)
    assert len(local) > 0
    assert remote.equals(local)
