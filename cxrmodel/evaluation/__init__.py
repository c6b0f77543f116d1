"""How a run is judged: metrics with intervals, calibration, baselines, and an audit."""
