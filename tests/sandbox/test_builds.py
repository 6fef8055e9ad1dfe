"""What is built once for the machine, and found again by every checkout."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox import debian, places, platform, programs, toolchain

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


def test_what_was_built_is_found_by_every_process() -> None:
    program = (
        "from sandbox import base_image, toolchain\n"
        "print(base_image._RECIPE, [module.key for module in toolchain.ALL])"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_every_module_says_all_that_it_is_made_of() -> None:
    for module in (*toolchain.ALL, *toolchain.FOR_TESTS):
        assert (module.folder / "go.mod").exists()
        # Without a go.sum nobody would notice that a module's content changed.
        assert (module.folder / "go.sum").exists() or module.name == "pause"


def test_what_a_killed_build_left_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "one.draft").mkdir()
    (tmp_path / "one.draft" / "half").touch()
    with places.scratch(tmp_path, "one") as draft:
        assert list(draft.iterdir()) == []
        draft.rename(tmp_path / "done")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done", "one.lock"]


def test_two_never_build_at_once(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with places.scratch(tmp_path, "one"):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(places.SandboxError, match=r"(?s)counting failed: .*ended with 3:\n5\n.*19"):
        programs.run("counting", "sh", "-c", "seq 1 19; exit 3")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(places.SandboxError, match="no program nonesuch"):
        programs.run("trying", "nonesuch")


def test_without_root_one_message_says_what_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(debian, "missing_packages", lambda: ["nftables", "mmdebstrap"])
    with pytest.raises(places.SandboxError) as raised:
        debian.prepare()
    for words in ("needs root", "nftables mmdebstrap", "make demo KUBECONFIG=... REGISTRY=..."):
        assert words in str(raised.value)


def test_a_library_is_missing_until_programs_can_be_built_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PKG_CONFIG_LIBDIR", str(tmp_path))
    assert "libseccomp-dev" in debian.missing_packages()
    (tmp_path / "libseccomp.pc").write_text("Name: libseccomp\nDescription: -\nVersion: 2\n")
    assert "libseccomp-dev" not in debian.missing_packages()


def test_the_package_index_is_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.touch()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://packages.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert platform.package_index() == {
        "url": "https://packages.example/simple",
        "caBundle": str(bundle),
    }
