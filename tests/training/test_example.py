"""The example of the README runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

README = Path(__file__).parents[2] / "training" / "README.md"


def test_the_readme_example_works(server: str, tmp_path: Path) -> None:
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    # What only names arguments leaves out what they are given.
    examples = [example for example in found if "import" in example]
    assert len(examples) == 3
    assert len([line for line in examples[1].splitlines() if line]) <= 15
    program = "\n".join([*examples, "print(len(older))"])
    # A database of its own would be made table by table, which takes longer than the example.
    assert program.count("sqlite:///mlflow.db") == 2
    done = subprocess.run(
        [sys.executable, "-c", program.replace("sqlite:///mlflow.db", server)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == [
        "drift tumours_drift 1",
        "outlier tumours_outlier 1",
        "predictor tumours 1",
        "1000",
    ]
