import subprocess
import sys

HEAVY = ["torch", "transformers", "datasets", "mlflow", "prefect", "pandas", "sklearn", "onnx"]


def test_importing_the_scorer_and_the_job_brings_in_nothing_heavy() -> None:
    code = (
        "import sys, serving.job, serving.scorer, serving.heads.classification; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_of_ours_is_imported_but_serving_itself() -> None:
    code = (
        "import sys, serving.job; "
        "print([m for m in ('tasks', 'flows', 'configs', 'modeling') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
