"""A real S3 server for tests: one Ceph node on loopback, in memory, with its RADOS gateway."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import boto3

PROGRAMS = ("ceph-authtool", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "radosgw", "radosgw-admin")
DAEMONS = {  # what each may do in the cluster
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
}
REGION = "us-east-1"
START_S = 90

CONFIGURATION = """
[global]
fsid = {fsid}
mon initial members = a
mon host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
log file = {folder}/log/$name.log
crash dir = {folder}/crash
mon data = {folder}/mon
mgr data = {folder}/mgr
mgr initial modules =
mon data avail warn = 1
mon data avail crit = 1
mon allow pool size one = true
mon max pg per osd = 1000
auth allow insecure global id reclaim = false
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw dynamic resharding = false
rgw run sync thread = false
"""


class Credentials(NamedTuple):
    """What a client signs with."""

    access_key: str
    secret_key: str


def missing_programs() -> list[str]:
    """Name what has to be installed first (Debian: radosgw ceph-mon ceph-osd ceph-mgr)."""
    return [name for name in (*PROGRAMS, "setpriv") if shutil.which(name) is None]


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Ceph:
    """One monitor, manager, object daemon (memory only) and gateway, each a process.

    All of them end with this process, even if it is killed; start and restart them on the main
    thread, since they end with the thread that started them.

    Attributes:
        endpoint: URL of the gateway.
        credentials: Of the user who owns what the tests make.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ceph-"))
        mon_v2, mon_v1, self._port = free_ports(3)
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._configuration = self._folder / "ceph.conf"
        self._fsid = str(uuid.uuid4())
        self._configuration.write_text(
            CONFIGURATION.format(
                fsid=self._fsid, folder=self._folder, mon_v2=mon_v2, mon_v1=mon_v1, rgw=self._port
            )
        )
        self._mon_addresses = f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]"
        self._clients: dict[Credentials, Any] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._gateway: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start everything and wait until the gateway answers; 15 s or so."""
        for name in ("mon", "mgr", "osd", "rgw", "run", "log", "crash"):
            (self._folder / name).mkdir()
        try:
            self._make_keys()
            self._start_cluster()
            self.credentials = self.add_user("xrays")
            self.start_gateway()
        except BaseException:
            self.stop()
            raise

    def start_gateway(self) -> None:
        """Start the gateway alone, and wait until it answers."""
        self._gateway = self._spawn("radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > deadline or self._gateway.poll() is not None:
                raise RuntimeError(f"The gateway did not start:\n{self._last_words('radosgw')}")
            time.sleep(0.05)

    def client(self, credentials: Credentials | None = None) -> Any:
        """Return a boto3 client that talks to the gateway directly; one a user, for all threads."""
        user = credentials or self.credentials
        if user not in self._clients:
            self._clients[user] = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=user.access_key,
                aws_secret_access_key=user.secret_key,
                region_name=REGION,
            )
        return self._clients[user]

    def stop_gateway(self) -> None:
        """Stop the gateway; the objects stay.

        Not by killing it: the cluster would wait half a minute for an answer of the dead one.
        """
        if self._gateway is not None:
            self._gateway.terminate()
            self._gateway.wait(START_S)

    def add_user(self, name: str) -> Credentials:
        """Make a user who owns nothing yet: another's buckets are closed to it."""
        user = Credentials(secrets.token_hex(10).upper(), secrets.token_hex(20))
        keys = ("--access-key", user.access_key, "--secret", user.secret_key)
        self._run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys)
        return user

    def stop(self) -> None:
        """Kill everything and delete the folder: what is in memory is worth no clean stop."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        shutil.rmtree(self._folder)

    def _make_keys(self) -> None:
        keyring = self._folder / "keyring"
        for name, capabilities in DAEMONS.items():
            caps = [word for pair in capabilities.items() for word in ("--cap", *pair)]
            create = [] if keyring.exists() else ["--create-keyring"]
            self._run("ceph-authtool", keyring, *create, "--gen-key", "-n", name, *caps)
        monitors = self._folder / "monmap"
        self._run(
            "monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._mon_addresses,
            monitors,
        )  # fmt: skip
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)

    def _start_cluster(self) -> None:
        self._spawn("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd, "0")  # waits for the monitor
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("ceph-osd", "-i", "0")
        self._spawn("ceph-mgr", "-i", "x")

    def _run(self, program: str, *arguments: object) -> None:
        words = [program, "--conf", self._configuration, *arguments]
        with (self._folder / "log" / f"{program}.out").open("ab") as log:
            done = subprocess.run(
                [str(word) for word in words], stdout=log, stderr=log, timeout=START_S, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments} failed:\n{self._last_words(program)}")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [program, "--conf", str(self._configuration), *arguments, "--foreground"]
        with (self._folder / "log" / f"{program}.out").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdout=log,
                stderr=log,
                env={**os.environ, "CEPH_CONF": str(self._configuration)},
            )
        self._processes.append(process)
        return process

    def _last_words(self, program: str) -> str:
        return (self._folder / "log" / f"{program}.out").read_text(errors="replace")[-2000:]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
