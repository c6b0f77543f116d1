# ruff: noqa: E501, RUF001 - a table of texts
"""Puts the figures of the last run into `README.md`, between its markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
NOT_MEASURED = "not measured"

# Section, figure, what it says, unit, goal.
ROWS = (
    ("training", "speedup_vs_notebook", "VAE training at 1024² in bfloat16 over the notebook's loop", "×", "≥ 2.2"),
    ("training", "float32_speedup_vs_notebook", "the same in float32", "×", ""),
    ("training", "speedup_vs_monai_bfloat16", "over MONAI's `VarAutoEncoder`, both in bfloat16", "×", ""),
    ("training", "float32_speedup_vs_monai", "the same, both in float32", "×", "≥ 2"),
    ("training", "share_of_bf16_matmul", "share of the machine's bfloat16 matrix rate", "", "≥ 0.55"),
    ("training", "bf16_matmul_gflop_per_s", "that rate", "GFLOP/s", ""),
    ("training", "peak_memory_gib_batch_8", "peak memory of training at batch 8", "GiB", ""),
    ("busy", "quiet_over_all_cores", "training at 128², threads found out, over one thread per core, on a quiet machine", "×", "≥ 1"),
    ("busy", "beside_busy_over_quiet", "the same beside a busy process, over the quiet machine", "", "≥ 0.6"),
    ("busy", "beside_busy_over_all_cores", "the same beside a busy process, over one thread per core there", "×", ""),
    ("busy", "two_over_one", "two such trainings at once, together, over one alone", "", "≥ 1"),
    ("busy", "one_core_over_one_thread", "where the process may use one core, over one thread", "", "≥ 0.9"),
    ("growth", "loader_wait", "share of training's time spent waiting for images", "", "≤ 0.05"),
    ("latents", "speedup_vs_notebook", "encoding to mu over the notebook's", "×", ""),
    ("latents", "share_of_bf16_matmul", "its share of the bfloat16 matrix rate", "", ""),
    ("latents", "stage_speedup_vs_notebook", "the whole latents stage, which also decodes and scores", "×", ""),
    ("latents", "prediction_vs_stage", "`predict` on decoded images over the latents stage, in images per second", "×", "≥ 0.9"),
    ("latents", "reading_vs_decoding", "`predict` from PNG files to pixels over decoding alone, on all cores", "×", "≥ 0.85"),
    ("pixels", "read_speedup_vs_decode", "a row of the pixel cache over decoding its file", "×", ""),
    ("pixels", "s3_decode_share", "images from a local S3 server over decoding from memory", "", "≥ 0.85"),
    ("pixels", "s3_speedup_at_50_ms", "the same at 50 ms latency over one at a time", "×", "≥ 8"),
    ("bootstrap", "bootstrap_s", "1,000 resamples of the patients of 16,818 × 14 predictions", "s", "< 60"),
    ("bootstrap", "bootstrap_peak_gib", "their peak memory", "GiB", "< 1"),
    ("another_site", "holds_auroc", "share of 200 comparisons with another site whose 95 % interval holds the true change of macro AUROC", "", "≥ 0.93"),
    ("another_site", "holds_excess", "the same, of the mean probability less the share of positives", "", "≥ 0.93"),
    ("another_site", "holds_brier", "the same, of the Brier score", "", "≥ 0.93"),
    ("another_site", "change_auroc", "the true change of macro AUROC", "", ""),
    ("another_site", "change_excess", "that of the mean probability less the share of positives", "", ""),
    ("another_site", "change_brier", "that of the Brier score", "", ""),
)  # fmt: skip
TABLES = (
    ("training", "ms_per_image", "Training at 1024 px", "ms per image"),
    ("latents", "ms_per_image", "Encoding at 1024 px", "ms per image"),
    ("pixels", "ms_per_image", "Pixels", "ms per image"),
    ("growth", "ms_per_image_by_side", "Training, by side in pixels", "ms per image"),
    ("growth", "peak_gib_by_batch", "Peak memory at 1024 px, by batch", "GiB"),
    ("growth", "epoch_s_by_images", "An epoch at 512 px, by number of images", "s"),
)
GPU_TABLES = (
    ("bfloat16", "Training in bfloat16, by batch"),
    ("float32", "Training in float32 (convolutions in TF32), by batch"),
    ("options", "Training at batch 32 in bfloat16"),
    ("latents", "Encoding"),
    ("beside", "Others on the same card"),
)


NESTED = (
    ("data_plane", "Stages before training"),
    ("joined_tables", "Index by layout"),
    ("full_size", "Every stage at 64 px, by number of images"),
    ("orchestration", "Prefect"),
    ("drift", "Drift: share of windows with an alarm"),
    ("big_window", "Drift of many images"),
)


def write_page(results: dict[str, Any], page: Path = PAGE) -> None:
    """Replace what lies between the markers of a page.

    Args:
        results: As in `results.json`.
        page: A Markdown file with both markers.
    """
    replace_between(page, BEGIN, END, render(results))


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what lies between two markers of a file."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def render(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    processors = results["processors"]
    header = ["figure", *processors, "goal"]
    blocks = [_rows(header, [_headline(processors, *row) for row in ROWS])]
    for name, measured in processors.items():
        blocks += [f"**{name}**: {_described(measured)}", *_tables(measured)]
    gpus = results.get("gpus", {})
    blocks += [_gpu(name, measured) for name, measured in gpus.items()]
    if not gpus:
        blocks.append(f"GPU (`make bench-gpu`): {NOT_MEASURED}.")
    return "\n\n".join(blocks)


def _described(measured: dict[str, Any]) -> str:
    machine, versions = measured["machine"], measured["versions"]
    return (
        f"{machine['threads']} threads; PyTorch {versions['torch']}, Python {versions['python']}; "
        f"images {machine['images']}."
    )


def _tables(measured: dict[str, Any]) -> list[str]:
    blocks = []
    for section, figure, title, unit in TABLES:
        values = measured.get(section, {}).get(figure)
        if values:
            header = [title, *(name.replace("_", " ") for name in values)]
            blocks.append(_rows(header, [[unit, *(f"{value:g}" for value in values.values())]]))
    for section, title in NESTED:
        if section in measured:
            blocks.append(_nested(title, measured[section]))
    return blocks


def _headline(
    processors: dict[str, Any], section: str, figure: str, title: str, unit: str, goal: str
) -> list[str]:
    values = [measured.get(section, {}).get(figure) for measured in processors.values()]
    shown = [NOT_MEASURED if v is None else f"{v:,} {unit}".strip() for v in values]
    return [title, *shown, goal]


def _nested(title: str, groups: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(groups.values())))
    header = [title, *(name.replace("_", " ") for name in names)]
    return _rows(
        header, [[group, *(f"{v[name]:g}" for name in names)] for group, v in groups.items()]
    )


def _gpu(name: str, measured: dict[str, Any]) -> str:
    machine = measured["machine"]
    blocks = [
        f"**{name}** ({machine['matrix_tflop_per_s']:g} TFLOP/s of bfloat16 matrix "
        f"products), PyTorch {machine['torch']}, CUDA {machine['cuda']}; {machine['size_px']} px, "
        f"images {machine['images']}. Images per second:"
    ]
    for section, title in GPU_TABLES:
        rows = measured.get(section, {})
        names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
        header = [title, *(name.replace("_", " ") for name in names)]
        blocks.append(
            _rows(
                header,
                [[row, *(_figure(figures.get(n)) for n in names)] for row, figures in rows.items()],
            )
        )
    ratios = measured["ratios"]
    blocks.append(
        _rows(["Ours at its best batch", "ratio"], [[n, f"{r:g}"] for n, r in ratios.items()])
    )
    return "\n\n".join(blocks)


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def _rows(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
