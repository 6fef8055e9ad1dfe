"""What importing does to Python's garbage collector: nothing that stays."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit
PROGRAM = """
import gc
import modelops_training
{before}
enabled, frozen = gc.isenabled(), bool(gc.get_freeze_count())
looked = [generation["collections"] for generation in gc.get_stats()[1:]]
modelops_training.register
assert looked == [generation["collections"] for generation in gc.get_stats()[1:]]
assert (gc.isenabled(), bool(gc.get_freeze_count())) == (enabled, frozen)
"""


@pytest.mark.parametrize("before", ["", "gc.disable()", "gc.freeze()"])
def test_nothing_is_looked_through_and_all_is_as_before(before: str) -> None:
    program = PROGRAM.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
