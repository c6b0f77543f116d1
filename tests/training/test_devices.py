import logging
import os
import subprocess
import sys

import pytest
import torch

from cxrmodel.training import devices
from cxrmodel.training.devices import (
    autocast,
    available_devices,
    deterministic_kernels,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


def test_auto_is_the_best_there_is():
    assert resolve_device("auto") == torch.device(available_devices()[0])
    assert resolve_device("cpu") == CPU


def test_a_device_that_is_not_there_is_named_beside_those_that_are():
    with pytest.raises(ValueError, match=r"'cuda:99', and this machine has .*cpu.* or 'auto'"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_bfloat16_only_where_the_hardware_has_it(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert resolve_precision("auto", CPU) == expected


def test_emulated_bfloat16_is_allowed_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    with caplog.at_level(logging.WARNING):
        assert resolve_precision("bfloat16", CPU) == "bfloat16"
    assert "emulates bfloat16" in caplog.text


def test_precision_applies_to_matrix_arithmetic():
    matrix = torch.eye(4)
    with autocast(CPU, "bfloat16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(CPU, "float32"):
        assert (matrix @ matrix).dtype == torch.float32


def test_deterministic_kernels_are_for_the_block_only(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(KeyError), deterministic_kernels(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_users_cublas_workspace_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic_kernels(torch.device("cuda")):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


RESIDENT_MIB = """
import torch
from cxrmodel.training.devices import keep_freed_memory

def resident_mib():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages // 256  # of 4 KiB

with keep_freed_memory(torch.device("cpu")):
    kept = [torch.ones(64 << 20, dtype=torch.uint8) for _ in range(4)]
    del kept
    print(resident_mib())
print(resident_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_for_the_block_only():
    command = [sys.executable, "-c", RESIDENT_MIB]  # a process of its own: its heap is the point
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    within, after = map(int, ran.stdout.split())
    assert within - after > 200, "256 MiB were freed within the block"
