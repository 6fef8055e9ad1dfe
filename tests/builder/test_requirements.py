import pytest
from modelops_operator.builder.failures import BuildError
from modelops_operator.builder.requirements import read_requirements

pytestmark = pytest.mark.unit

MODEL = "model employment version 12"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("numpy==2.4.6", ("numpy==2.4.6",)),
        ("numpy>=2,<3", ("numpy<3,>=2",)),
        ("numpy~=2.1", ("numpy~=2.1",)),
        ("numpy==2.*", ("numpy==2.*",)),
        ("uvicorn[standard]==0.30", ("uvicorn[standard]==0.30",)),
        ('tomli==2.0; python_version < "3.11"', ('tomli==2.0; python_version < "3.11"',)),
        ("mlflow==3.17.2", ("mlflow-skinny==3.17.2", "numpy<3", "pandas<4")),
        ("mlflow[extras]==3.17.2", ("mlflow-skinny==3.17.2", "numpy<3", "pandas<4")),
        ("mlflow-skinny==3.17.2", ("mlflow-skinny==3.17.2",)),
        ("# nothing\n\n  numpy==2.4.6  # pinned\r\n", ("numpy==2.4.6",)),
        ("\ufeffnumpy==2.4.6", ("numpy==2.4.6",)),
        ("", ()),
    ],
)
def test_takes_pins_and_bounded_ranges(text: str, wanted: tuple[str, ...]) -> None:
    assert read_requirements(text, None, model=MODEL).wanted == wanted


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("numpy", "no upper bound"),
        ("numpy>=2", "no upper bound"),
        ("numpy!=2.0", "no upper bound"),
        ("https://example.org/toy-1.0-py3-none-any.whl", "address or a path"),
        ("toy @ https://example.org/toy-1.0-py3-none-any.whl", "points to an address"),
        ("git+https://example.org/toy.git", "address or a path"),
        ("git@example.org:toy.git", "address or a path"),
        ("./toy", "address or a path"),
        ("../toy", "address or a path"),
        ("/srv/toy", "address or a path"),
        ("~/toy", "address or a path"),
        (r"C:\toy", "address or a path"),
        ("-e .", "option"),
        ("--editable .", "option"),
        ("-r other.txt", "option"),
        ("--index-url https://example.org/simple", "option"),
        ("-i https://example.org/simple", "option"),
        ("--extra-index-url=https://example.org/simple", "option"),
        ("--find-links /srv", "option"),
        ("--no-binary :all:", "option"),
        ("--pre", "option"),
        ("numpy==2.4.6 --hash=sha256:00", "options"),
        ("numpy==2.4.6 --no-binary", "options"),
        ("numpy==2.4.6 \\", "options"),
        ("numpy=2.4.6", "not understood"),
        ("my model==1.0", "not understood"),
        ("-c constraints.txt", "does not have"),
    ],
)
def test_refuses_the_rest_and_names_the_line(line: str, why: str) -> None:
    with pytest.raises(BuildError, match=why) as caught:
        read_requirements(f"pandas==3.0\n{line}\n", None, model=MODEL)
    failure = caught.value.failure
    assert failure.reason == "RequirementRejected"
    assert failure.permanent
    assert failure.message.startswith(f"{MODEL}: line 2 of requirements.txt, `{line}`, ")


def test_reads_the_constraints_that_mlflow_writes_beside() -> None:
    text = "-c constraints.txt\nscikit-learn==1.7.2\n"
    read = read_requirements(text, "numpy!=2.4.0\nscipy<2\n", model=MODEL)
    assert read.wanted == ("scikit-learn==1.7.2",)
    assert read.constraints == ("numpy!=2.4.0", "scipy<2")


def test_refuses_constraints_that_lead_elsewhere() -> None:
    with pytest.raises(BuildError, match=r"line 1 of constraints.txt, `toy @ https"):
        read_requirements("-c constraints.txt", "toy @ https://example.org/t.whl", model=MODEL)
