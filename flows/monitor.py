"""Watch for drift of scored images: `python flows/monitor.py --help` shows every setting."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from prefect import flow

from cxrmodel.inference.use_config import MonitorConfig
from flows.flags import run_command
from tasks.engine.progress import show_library_logs
from tasks.monitor import tell_of_drift, watch_newest


@flow(name="cxrmodel-monitor", flow_run_name="monitor-{config.bundle}", persist_result=False)
def monitor_scores(config: MonitorConfig) -> dict[str, str]:
    """Tell whether the images that were scored last differ from those a model was validated on.

    A window that has drifted is no failure of the run: the event `cxrmodel.drift` tells of it.

    Args:
        config: Which images, which bundle, and at which level.

    Returns:
        What was found, in words, by what it is.
    """
    show_library_logs()
    return tell_of_drift(watch_newest(config))


if __name__ == "__main__":
    run_command(monitor_scores, MonitorConfig, "python flows/monitor.py")
