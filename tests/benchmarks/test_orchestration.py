"""What Prefect costs is measured on runs of the real command line."""

from benchmarks.orchestration import library_seconds, run_once
from cxrmodel.phantom import write_phantoms


def test_a_run_says_how_long_its_flow_took(tmp_path):
    write_phantoms(tmp_path / "dataset", 40, size_px=64)
    flow_s, process_s = run_once(tmp_path / "dataset", tmp_path / "run", {})
    assert 0 < library_seconds(tmp_path / "run" / "store") < flow_s < process_s
