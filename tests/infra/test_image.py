"""Check the image without a container engine: its Dockerfile, the build context, and its scripts."""

import http.server
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from components.core.process import QUIET
from infra.healthcheck import fault
from tests.support.infra_files import BUILD_STAGE, DOCKERFILE, FINAL_STAGE, IMAGES, INSTRUCTIONS, image_variables, instructions
from tests.support.project import BIN, ROOT

SECRETS = (".env", "infra/secrets/prefect_auth", "infra/kubernetes/base/secrets.env", ".git/config", ".dvc/config.local")
STATE = ("var/ledger.db", ".venv/bin/python", "flows/__pycache__/a.pyc")


def test_linter_finds_nothing_and_ignores_are_explained() -> None:
    result = subprocess.run([BIN / "hadolint", IMAGES / "Dockerfile"], capture_output=True, text=True)
    lines = DOCKERFILE.splitlines()

    assert (result.returncode, result.stdout) == (0, "")
    assert all(lines[at - 1].startswith("# ") for at, line in enumerate(lines) if line.startswith("# hadolint ignore="))


def test_linter_detects_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n", encoding="utf-8")

    assert "DL3007" in subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True, text=True).stdout


def test_both_stages_have_one_pinned_base() -> None:
    bases = re.findall(r"^FROM (\S+)", INSTRUCTIONS, re.MULTILINE)

    assert bases == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert re.search(r"^ARG BASE_IMAGE=python:3\.11\.\d+-slim-\w+$", INSTRUCTIONS, re.MULTILINE)


def test_final_stage_is_unprivileged_without_build_tools() -> None:
    installed = re.findall(r"apt-get install [^&]*", FINAL_STAGE)

    assert instructions(FINAL_STAGE, "USER") == ["10001:10001"]
    assert [set(line.split()[2:]) - {"--yes", "--no-install-recommends"} for line in installed] == [{"ca-certificates", "git", "tini"}]
    assert "pip install" not in FINAL_STAGE
    assert instructions(FINAL_STAGE, "COPY") == ["--from=build /opt/venv /opt/venv", "--from=build /opt/retune /opt/retune"]


def test_packages_are_constrained_and_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"--editable '\.\[([\w,]+)\]'", BUILD_STAGE)

    assert "pip install -c constraints.txt" in BUILD_STAGE
    assert {"shared", "kubernetes"} <= set(extras.split(",")) <= set(project["optional-dependencies"])
    assert f"ARG VERSION={project['version']}" in FINAL_STAGE.splitlines()


def test_no_package_index_and_no_telemetry() -> None:
    assert "://" not in re.sub(r"http://127\.0\.0\.1\S*", "", INSTRUCTIONS)
    assert image_variables().items() >= QUIET.items()
    assert image_variables()["PYTHONDONTWRITEBYTECODE"] == "1"


def test_written_paths_are_volumes_or_tmp() -> None:
    paths = {value for value in image_variables().values() if value.startswith("/") and "/bin" not in value}

    assert len(paths) >= 6
    assert all(re.match(r"/(tmp|cache|project)\b", path) for path in paths)
    assert "/project /cache" in FINAL_STAGE  # created with their owner, which new volumes inherit


def test_build_context_has_tracked_files_without_secrets(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    for name in (*tracked, *SECRETS, *STATE, ".git/HEAD", ".git/objects/ab/cd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    sent = exclude_paths(str(tmp_path), [rule for rule in rules if rule and not rule.startswith("#")])

    assert len(tracked) > 300
    assert set(tracked) - sent == set()
    assert {".git/HEAD", ".git/objects/ab/cd"} <= sent
    assert sent & {*SECRETS, *STATE} == set()


def run_with_secrets(folder: Path, files: dict[str, str], **environment: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "kubernetes.io").mkdir()
    environment |= {"PATH": os.environ["PATH"], "SECRETS": str(folder)}
    return subprocess.run([IMAGES / "entrypoint.sh", "env"], env=environment, capture_output=True, text=True)


def test_secret_file_becomes_a_variable(tmp_path: Path) -> None:
    files = {"pgpassword": "a b'$\"c\n", "aws_secret_access_key": "file", "retune_database": "no", "s3.json": "{}", "mlflow-x": "no"}

    result = run_with_secrets(tmp_path / "secrets", files, AWS_SECRET_ACCESS_KEY="set")

    variables = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert variables["PGPASSWORD"] == "a b'$\"c"
    assert variables["AWS_SECRET_ACCESS_KEY"] == "set"
    assert not [name for name in variables if name.startswith(("RETUNE_", "MLFLOW", "S3"))]


def test_command_runs_without_secrets(tmp_path: Path) -> None:
    result = subprocess.run([IMAGES / "entrypoint.sh", "sh", "-c", "exit 7"], env={**os.environ, "SECRETS": str(tmp_path / "none")})

    assert result.returncode == 7


def test_lease_lock_of_killed_server_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "concurrency_leases/expirations.lock"
    lock.parent.mkdir()
    lock.write_text("7", encoding="utf-8")
    (lock.parent / "a-lease.json").write_text("{}", encoding="utf-8")
    subprocess.run(
        [IMAGES / "entrypoint.sh", "true"], env={**os.environ, "SECRETS": str(tmp_path / "none"), "PREFECT_HOME": str(tmp_path)}, check=True
    )

    assert [path.name for path in lock.parent.iterdir()] == ["a-lease.json"]


def test_unreadable_secret_stops_the_command(tmp_path: Path) -> None:
    (tmp_path / "cat").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # fake `cat`, since root in CI can read every file
    (tmp_path / "cat").chmod(0o755)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/pgpassword").write_text("x", encoding="utf-8")
    environment = {"SECRETS": str(tmp_path / "secrets"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    result = subprocess.run([IMAGES / "entrypoint.sh", "echo", "continued"], env=environment, capture_output=True, text=True)

    assert (result.returncode, result.stdout) == (1, "")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a folder like /opt/retune: a clone with a commit, without .git/config."""
    folder = tmp_path / "image"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/.gitignore").write_text("/cache\n", encoding="utf-8")
    (folder / "params.yaml").write_text("name: one\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "one")
    (folder / ".git/config").unlink()
    return folder


def check_out(image: Path) -> "subprocess.CompletedProcess[str]":
    home = image.parent
    return subprocess.run([IMAGES / "checkout.sh", image, home / "project", home / "cache"], capture_output=True, text=True)


def test_checkout_follows_the_images_commit(image: Path) -> None:
    project = image.parent / "project"
    assert check_out(image).returncode == 0
    assert git(project, "status", "--porcelain") == ""
    (project / ".dvc/cache/object").write_text("kept", encoding="utf-8")
    (project / "dvc.lock").write_text("of a run\n", encoding="utf-8")
    (image / "params.yaml").write_text("name: two\n", encoding="utf-8")
    git(image, "commit", "--quiet", "--all", "--message", "two")

    assert [check_out(image).returncode for _ in range(2)] == [0, 0]

    assert (project / "params.yaml").read_text(encoding="utf-8") == "name: two\n"
    assert git(project, "rev-parse", "HEAD") == git(image, "rev-parse", "HEAD")
    assert (project / "dvc.lock").read_text(encoding="utf-8") == "of a run\n"
    assert (image.parent / "cache/dvc/object").read_text(encoding="utf-8") == "kept"


def test_only_old_temporary_files_are_removed(image: Path) -> None:
    assert check_out(image).returncode == 0
    temporary = image.parent / "project/var/tmp"
    for name, days in (("of-a-run", 1), ("left-behind", 8)):
        (temporary / name).mkdir()
        then = time.time() - days * 86_400
        os.utime(temporary / name, (then, then))

    assert check_out(image).returncode == 0
    assert [path.name for path in temporary.iterdir()] == ["of-a-run"]


def test_checkout_does_not_overwrite_changes_of_a_run(image: Path) -> None:
    project = image.parent / "project"
    check_out(image)
    (project / "params.yaml").write_text("name: mine\n", encoding="utf-8")
    (image / "params.yaml").write_text("name: two\n", encoding="utf-8")
    git(image, "commit", "--quiet", "--all", "--message", "two")

    result = check_out(image)

    assert result.returncode != 0
    assert "params.yaml" in result.stderr
    assert (project / "params.yaml").read_text(encoding="utf-8") == "name: mine\n"


def test_image_without_commit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()

    result = check_out(tmp_path / "image")

    assert result.returncode == 2
    assert "build the image from a clone" in result.stderr
    assert not (tmp_path / "project").exists()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_only_status_200_is_healthy(server: str) -> None:
    assert fault(f"{server}/200") is None
    assert "503" in str(fault(f"{server}/503"))
    assert "204" in str(fault(f"{server}/204"))


def test_unreachable_server_is_unhealthy(server: str) -> None:
    command = [sys.executable, "-m", "infra.healthcheck"]

    assert subprocess.run([*command, f"{server}/200"], cwd=ROOT).returncode == 0
    assert subprocess.run([*command, "http://127.0.0.1:9/"], cwd=ROOT, capture_output=True).returncode == 1
