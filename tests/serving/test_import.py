"""What importing serving brings in."""

import os
import subprocess
import sys
from pathlib import Path

HEAVY = ["torch", "transformers", "datasets", "mlflow", "prefect", "pandas", "sklearn", "onnx"]


def test_importing_the_scorer_and_the_job_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, headrace.serving.jobs.job, headrace.serving.engine.scorer; "
        "import headrace.serving.heads.classification; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_of_ours_is_imported_but_serving_itself() -> None:
    code = (
        "import sys, headrace.serving.jobs.job; "
        "print([m for m in sys.modules if m.startswith('headrace.') "
        "and not (m + '.').startswith('headrace.serving.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_onnxruntime_records_nothing_about_the_user(tmp_path: Path) -> None:
    env = {name: v for name, v in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    code = "import headrace.serving.engine.scorer, headrace.tasks.export.variants, onnxruntime"
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**env, "HOME": str(tmp_path)}, check=True)
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in str(path)] == []
