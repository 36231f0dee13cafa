"""A tied process ends with its parent, even if the parent is killed before the process has started."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from components.core.process import tied_command
from components.steps import STEPS
from tests.support.project import started
from tests.support.tiers import rest_exhaustive

ROOT = Path(__file__).parents[3]
PYTHON = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
STEP = """
import time
from pathlib import Path

def {name}(out: Path) -> None:
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def slow_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with steps that import nothing and take a minute."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "components/core", folder / "components/core")
    for name in ("__init__", "__main__", "steps"):
        shutil.copy(ROOT / f"components/{name}.py", folder / "components")
    for name, module in STEPS.items():
        path = folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STEP.format(name=name))
    (folder / "params.yaml").write_text("{}\n")
    return folder


def have_ended(pids: list[int]) -> bool:
    """Return whether the processes end in time; kill the others."""
    alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=15)[1]
    for process in alive:
        process.kill()
    return not alive


@pytest.mark.parametrize("stage", rest_exhaustive(STEPS, "train"))
def test_stage_ends_if_dvc_is_killed_at_its_start(slow_steps: Path, stage: str) -> None:
    begin = f"exec python -m components {stage} out/{stage}-$0 & echo $!; wait"  # like DVC: a child in its own session
    variables = os.environ | PYTHON | {"PYTHONPATH": str(slow_steps), "DVC_STAGE": stage}
    runs = []
    for number in range(20):
        command = ["/bin/sh", "-c", begin, str(number)]
        runs.append(subprocess.Popen(command, cwd=slow_steps, env=variables, stdout=subprocess.PIPE, start_new_session=True))
    start = time.monotonic()
    children = []
    for number, dvc in enumerate(runs):
        assert dvc.stdout is not None
        children.append(int(dvc.stdout.readline()))
        time.sleep(max(0.0, start + number * 0.025 - time.monotonic()))  # killed 0 to 0.5 seconds after the stage was started
        dvc.kill()
        dvc.wait()
        dvc.stdout.close()

    assert have_ended(children)


def test_stage_runs_as_long_as_dvc(slow_steps: Path) -> None:
    begin = "python -m components train out/alive; echo $?"
    variables = os.environ | PYTHON | {"PYTHONPATH": str(slow_steps), "DVC_STAGE": "train"}
    with started(["/bin/sh", "-c", begin], cwd=slow_steps, env=variables, stdout=subprocess.PIPE) as dvc:
        locked = slow_steps / "var/locks/out-alive.lock"
        while dvc.poll() is None and not locked.exists():  # until it has started
            time.sleep(0.02)
        (stage,) = psutil.Process(dvc.pid).children()
        stage.send_signal(signal.SIGINT)

        assert dvc.communicate()[0] == "130\n"


def test_stage_with_its_own_session_runs() -> None:
    """As with `script`, `unbuffer` or `setsid` in the command of a stage."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from components.core.process import die_with_parent; die_with_parent()"
    command = [sys.executable, "-c", script]

    assert subprocess.run(command, env=os.environ | {"DVC_STAGE": "train"}, start_new_session=True).returncode == 0


def test_child_ends_with_a_parent_killed_at_once(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, subprocess, sys
        sys.path.insert(0, sys.argv[1])
        from components.core.process import tied_command
        for _ in range(5):
            child = subprocess.Popen(tied_command(["sleep", "60"]), stdout=subprocess.DEVNULL, start_new_session=True)
            print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    done = subprocess.run([sys.executable, str(script), str(ROOT)], stdout=subprocess.PIPE, text=True)

    assert done.returncode == -signal.SIGKILL
    assert have_ended([int(pid) for pid in done.stdout.split()])


def test_tied_command_runs() -> None:
    assert subprocess.check_output(tied_command(["echo", "one", "two"]), text=True) == "one two\n"


CHAIN = """
import logging, sys
from pathlib import Path
from flows.dvc_adapter.repro import reproduce_stage
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
reproduce_stage(sys.argv[1], Path.cwd())
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", STEPS)
def test_stage_ends_if_the_run_is_killed_at_its_start(slow_steps: Path, tmp_path: Path, stage: str) -> None:
    shutil.copytree(slow_steps / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "params.yaml").write_text("{}\n")
    command = f"exec python -m components {stage} out/{stage}"
    (tmp_path / "dvc.yaml").write_text(f"stages: {{{stage}: {{cmd: {command}, outs: [out/{stage}]}}}}\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    variables = os.environ | PYTHON | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    for number in range(5):  # through DVC; the test above kills 20 times
        with started([sys.executable, "-c", CHAIN, stage], cwd=tmp_path, env=variables, **pipes) as run:
            output = []
            while not output or f"Running stage '{stage}'" not in output[-1]:
                output.append(run.stdout.readline())
                assert output[-1], "".join(output)
            time.sleep(number * 0.125)
            run.kill()

        assert have_ended([process.pid for process in psutil.process_iter() if works_in(process, tmp_path)])


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Return whether a Python process has the working folder `folder`."""
    try:
        return Path(process.cwd()) == folder
    except psutil.Error:
        return False
