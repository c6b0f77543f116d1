"""A version beside the one before it: one pool, one store, each with its own code."""

import json
import shutil
from pathlib import Path

import pytest

from tests.deployments.site import SMALL, STAGES, Api, Site

pytestmark = pytest.mark.integration
CHANGED = "cxrmodel/evaluation/baselines.py"
OLD, NEW = "1111111", "2222222"


@pytest.fixture(scope="module")
def previous(project, tmp_path_factory) -> Path:
    """The project as it was before the code of one stage was changed."""
    folder = tmp_path_factory.mktemp("previous")
    shutil.copytree(project, folder, dirs_exist_ok=True)
    with (folder / CHANGED).open("a") as module:
        module.write("\nNAME_SINCE_REMOVED = 1\n")
    return folder


@pytest.fixture(scope="module")
def site(server, project, previous, films, tmp_path_factory) -> Site:
    """Both versions on one pool, the older one with a suffix."""
    env = {**server.env, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    site = Site(tmp_path_factory.mktemp("worker"), env, "test-upgrade")
    deploy(site, previous, OLD, f"--data.root={films}", "--suffix=old")
    deploy(site, project, NEW, f"--data.root={films}")
    return site


def deploy(site: Site, project: Path, revision: str, *arguments: str) -> None:
    arguments = (*SMALL, f"--env=PYTHONPATH={project}", *arguments)
    site.deploy(project, *arguments, store=str(site.folder / "store"), revision=revision)


def completed(api: Api, deployment: str) -> dict[str, str | None]:
    run = api.trigger(deployment)
    assert api.finish(run) == "Completed", api.log(run)
    return api.stages(run)


def test_the_version_before_stays_usable_beside_the_new_one(api, site, project):
    versions = {
        name: api.client.read_deployment_by_name(f"cxrmodel/{name}").version
        for name in ("train", "train-old")
    }
    assert versions["train"].endswith(NEW)
    assert versions["train-old"].endswith(OLD)
    cached = dict.fromkeys(STAGES, "Cached")
    with site.worker():
        assert completed(api, "train-old") == dict.fromkeys(STAGES, "Completed")
        # Of the same content as before, the changed stage's result leaves the report cached.
        assert completed(api, "train") == {**cached, "baselines": "Completed"}
        of_an_older_schema(site.folder / "store", "split")
        assert completed(api, "train-old") == {**cached, "split": "Completed"}

    deploy(site, project, NEW, "--suffix=old", "--delete")
    names = {each.name for each in api.client.read_deployments()}
    assert "train" in names
    assert "train-old" not in names


def of_an_older_schema(store: Path, stage: str) -> None:
    """Make a stage's record one of a version whose references had no sizes."""
    (path,) = store.glob(f"_results/{stage}-*")
    record = json.loads(path.read_text())
    result = json.loads(record["result"])
    result["data"]["files"] = list(result["data"]["files"])
    record["result"] = json.dumps(result)
    path.write_text(json.dumps(record))
