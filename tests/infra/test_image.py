"""The image without an engine: its Dockerfile, what a build would send, and the scripts in it, run as they are."""

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
from tests.support.project import BIN, ROOT

IMAGES = ROOT / "infra/images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
BUILD, FINAL = re.split(r"^FROM .*\n", INSTRUCTIONS, flags=re.MULTILINE)[1:]
SECRETS = (".env", "infra/secrets/prefect_auth", "infra/kubernetes/base/secrets.env", ".git/config", ".dvc/config.local")
STATE = ("var/ledger.db", ".venv/bin/python", "flows/__pycache__/a.pyc")


def instructions(stage: str, name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in stage.splitlines() if line.startswith(f"{name} ")]


def variables(stage: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in instructions(stage, "ENV") for pair in line.split())


def test_the_linter_finds_nothing_and_what_it_overlooks_is_explained() -> None:
    found = subprocess.run([BIN / "hadolint", IMAGES / "Dockerfile"], capture_output=True, text=True)
    lines = DOCKERFILE.splitlines()

    assert (found.returncode, found.stdout) == (0, "")
    assert all(lines[at - 1].startswith("# ") for at, line in enumerate(lines) if line.startswith("# hadolint ignore="))


def test_the_linter_finds_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n", encoding="utf-8")

    assert "DL3007" in subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True, text=True).stdout


def test_both_stages_stand_on_one_pinned_base() -> None:
    bases = re.findall(r"^FROM (\S+)", INSTRUCTIONS, re.MULTILINE)

    assert bases == ["${BASE_IMAGE}", "${BASE_IMAGE}"]
    assert re.search(r"^ARG BASE_IMAGE=python:3\.11\.\d+-slim-\w+$", INSTRUCTIONS, re.MULTILINE)


def test_the_final_stage_runs_as_nobody_special_and_has_no_tools_to_build_with() -> None:
    installed = re.findall(r"apt-get install [^&]*", FINAL)

    assert instructions(FINAL, "USER") == ["10001:10001"]
    assert [set(one.split()[2:]) - {"--yes", "--no-install-recommends"} for one in installed] == [{"ca-certificates", "git", "tini"}]
    assert "pip install" not in FINAL
    assert instructions(FINAL, "COPY") == ["--from=build /opt/venv /opt/venv", "--from=build /opt/retune /opt/retune"]


def test_the_packages_are_the_constrained_ones_with_extras_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"--editable '\.\[([\w,]+)\]'", BUILD)

    assert "pip install -c constraints.txt" in BUILD
    assert {"shared", "kubernetes"} <= set(extras.split(",")) <= set(project["optional-dependencies"])
    assert f"ARG VERSION={project['version']}" in FINAL.splitlines()


def test_no_index_is_named_and_nothing_is_sent_home() -> None:
    assert "://" not in re.sub(r"http://127\.0\.0\.1\S*", "", INSTRUCTIONS)
    assert variables(FINAL).items() >= QUIET.items()
    assert variables(FINAL)["PYTHONDONTWRITEBYTECODE"] == "1"


def test_what_is_written_while_it_runs_goes_to_a_volume_or_to_tmp() -> None:
    places = {value for value in variables(FINAL).values() if value.startswith("/") and "/bin" not in value}

    assert len(places) >= 6
    assert all(re.match(r"/(tmp|cache|project)\b", place) for place in places)
    assert "/project /cache" in FINAL  # made with their owner, so that a new volume has it


def test_a_build_gets_all_that_git_tracks_and_neither_secrets_nor_state(tmp_path: Path) -> None:
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


def test_a_secret_becomes_a_variable_of_the_command_unless_it_is_set_or_retune_reads_it(tmp_path: Path) -> None:
    files = {"pgpassword": "a b'$\"c\n", "aws_secret_access_key": "file", "retune_database": "no", "s3.json": "{}", "mlflow-x": "no"}

    done = run_with_secrets(tmp_path / "secrets", files, AWS_SECRET_ACCESS_KEY="set")

    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["PGPASSWORD"] == "a b'$\"c"
    assert found["AWS_SECRET_ACCESS_KEY"] == "set"
    assert not [name for name in found if name.startswith(("RETUNE_", "MLFLOW", "S3"))]


def test_without_secrets_the_command_runs_as_it_is(tmp_path: Path) -> None:
    done = subprocess.run([IMAGES / "entrypoint.sh", "sh", "-c", "exit 7"], env={**os.environ, "SECRETS": str(tmp_path / "none")})

    assert done.returncode == 7


def test_the_lock_that_a_killed_server_left_on_its_leases_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "concurrency_leases/expirations.lock"
    lock.parent.mkdir()
    lock.write_text("7", encoding="utf-8")
    (lock.parent / "a-lease.json").write_text("{}", encoding="utf-8")
    subprocess.run(
        [IMAGES / "entrypoint.sh", "true"], env={**os.environ, "SECRETS": str(tmp_path / "none"), "PREFECT_HOME": str(tmp_path)}, check=True
    )

    assert [path.name for path in lock.parent.iterdir()] == ["a-lease.json"]


def test_a_secret_that_cannot_be_read_stops_the_command(tmp_path: Path) -> None:
    (tmp_path / "cat").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # root, who runs the tests of CI, can read every file
    (tmp_path / "cat").chmod(0o755)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/pgpassword").write_text("x", encoding="utf-8")
    environment = {"SECRETS": str(tmp_path / "secrets"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = subprocess.run([IMAGES / "entrypoint.sh", "echo", "went on"], env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (1, "")


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What /opt/retune is: a clone with a commit, without .git/config."""
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


def test_a_checkout_is_clean_at_the_images_commit_and_follows_it(image: Path) -> None:
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


def test_a_worker_has_room_for_what_is_on_its_way_and_loses_none_of_it_under_a_run(image: Path) -> None:
    assert check_out(image).returncode == 0
    room = image.parent / "project/var/tmp"
    for name, days in (("of-a-run", 1), ("left-behind", 8)):
        (room / name).mkdir()
        then = time.time() - days * 86_400
        os.utime(room / name, (then, then))

    assert check_out(image).returncode == 0
    assert [path.name for path in room.iterdir()] == ["of-a-run"]


def test_a_checkout_overwrites_nothing_that_a_run_has_changed(image: Path) -> None:
    project = image.parent / "project"
    check_out(image)
    (project / "params.yaml").write_text("name: mine\n", encoding="utf-8")
    (image / "params.yaml").write_text("name: two\n", encoding="utf-8")
    git(image, "commit", "--quiet", "--all", "--message", "two")

    done = check_out(image)

    assert done.returncode != 0
    assert "params.yaml" in done.stderr
    assert (project / "params.yaml").read_text(encoding="utf-8") == "name: mine\n"


def test_an_image_without_a_commit_says_how_to_build_it(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()

    done = check_out(tmp_path / "image")

    assert done.returncode == 2
    assert "build the image from a clone" in done.stderr
    assert not (tmp_path / "project").exists()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_only_200_is_healthy(server: str) -> None:
    assert fault(f"{server}/200") is None
    assert "503" in str(fault(f"{server}/503"))
    assert "204" in str(fault(f"{server}/204"))


def test_nobody_listening_is_not_healthy(server: str) -> None:
    ask = [sys.executable, "-m", "infra.healthcheck"]

    assert subprocess.run([*ask, f"{server}/200"], cwd=ROOT).returncode == 0
    assert subprocess.run([*ask, "http://127.0.0.1:9/"], cwd=ROOT, capture_output=True).returncode == 1
