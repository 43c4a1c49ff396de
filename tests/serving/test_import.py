"""What importing serving brings in."""

import subprocess
import sys

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
