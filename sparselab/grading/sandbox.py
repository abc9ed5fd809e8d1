"""The walls around a student's code, and the small program that puts them up before it starts.

Run as a script by a bare interpreter (standard library only), it applies every measure that this system
allows and becomes the worker. Each measure that could not be applied is handed on as a line, and ends in the
marks: nothing is promised silently.
"""

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
OF_ENGINES = ("PATH", "HOME", "DOCKER_HOST", "CONTAINER_HOST", "XDG_RUNTIME_DIR")


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    call_seconds: float = 10  # wall clock, for one call
    start_seconds: float = 60  # wall clock, to read the submission or to run its imports
    total_seconds: float = 300  # wall clock, for a submission
    cpu_seconds: int = 60  # of one child
    memory_mb: int = 4096  # of address space, which torch alone takes a good part of
    file_mb: int = 16  # of one file; all files together where a folder of its own can be mounted


def command(
    limits: Limits, *, folder: Path, hidden: Sequence[Path] = (), container: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) of a worker whose only place to write is `folder`.

    `container` is the command of `container_command`, which takes the place of the measures here.
    """
    if container:
        return list(container), {key: os.environ[key] for key in OF_ENGINES if key in os.environ}
    environment = worker_environment(folder)
    if os.name != "posix":
        told = ["limits: wall clock only; this system has no other that Python can set"]
        return worker_line(told), environment
    settings = {"limits": asdict(limits), "folder": str(folder), "hidden": [str(path) for path in hidden]}
    return [sys.executable, "-I", "-S", str(Path(__file__)), json.dumps(settings)], environment


def worker_line(told: Sequence[str], python: str = sys.executable) -> list[str]:
    """The worker's own command line; `told` are the measures that it reports."""
    return [python, "-s", "-P", "-B", "-m", "sparselab.grading.worker", json.dumps(list(told))]


def worker_environment(folder: Path) -> dict[str, str]:
    """Nothing of the grader's: no tokens, no paths, one thread, one order of hashes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = {key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ}
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(PACKAGE.parent),
        **threads,
        **kept,
    }


def container_command(image: str, limits: Limits, *, engine: str = "") -> list[str]:
    """`docker run` or `podman run` of a worker: no network, no rights, nothing to write but 16 MB of memory.

    Raises ValueError where neither program is there.
    """
    engine = engine or next((name for name in ("docker", "podman") if shutil.which(name)), "")
    if not engine:
        raise ValueError("--isolation container needs docker or podman, and neither is on the PATH")
    told = ["processes, network, files, memory: a container's"]
    return [
        engine, "run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL",
        "--security-opt=no-new-privileges", "--pids-limit=64", "--cpus=1", f"--memory={limits.memory_mb}m",
        f"--memory-swap={limits.memory_mb}m", f"--ulimit=cpu={limits.cpu_seconds}",
        f"--ulimit=fsize={limits.file_mb << 20}", "--ulimit=core=0", "--user=65534:65534",
        f"--tmpfs=/work:rw,size={limits.file_mb}m,mode=1777", "--workdir=/work", "--env=HOME=/work",
        "--env=TMPDIR=/work", "--env=PYTHONHASHSEED=0", "--env=OMP_NUM_THREADS=1", image,
        "timeout", "--signal=KILL", f"{limits.total_seconds:g}", *worker_line(told, python="python"),
    ]  # fmt: skip


def hideable(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Those of `paths` that the worker itself does not live in."""
    needed = [Path(p).resolve() for p in (sys.prefix, sys.base_prefix, sys.executable, PACKAGE, folder)]
    found = {path.resolve() for path in paths if path.exists()}
    found = {path for path in found if not any(path == n or path in n.parents for n in needed)}
    return sorted(path for path in found if not found & set(path.parents))


# ---------------------------------------------------------------- the script


def main() -> None:
    settings = json.loads(sys.argv[1])
    limits, folder = Limits(**settings["limits"]), settings["folder"]
    _die_with_the_parent()
    told = [_namespaces(folder, settings["hidden"], limits), _limits(limits), _system_calls()]
    os.chdir(folder)
    line = worker_line([line for line in told if line])
    os.execve(line[0], line, dict(os.environ))


def _limits(limits: Limits) -> str:
    import resource

    kinds = {
        "AS": limits.memory_mb << 20,
        "FSIZE": limits.file_mb << 20,
        "NOFILE": 256,
        "CORE": 0,
        "CPU": limits.cpu_seconds,
    }
    refused = []
    for kind, most in kinds.items():
        try:
            number = getattr(resource, f"RLIMIT_{kind}")
            allowed = resource.getrlimit(number)[1]
            most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
            resource.setrlimit(number, (most, most))
        except (OSError, ValueError, AttributeError):
            refused.append(kind)
    return f"limits: this system refuses {', '.join(refused)}" if refused else ""


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


# ------------------------------------------------ Linux: own view of files, processes and network

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOBODY = 65534
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 0x1000, 0x4000, 0x40000
READ_ONLY_BELOW = struct.pack("QQQQ", 1, 0, 0, 0)  # struct mount_attr: MOUNT_ATTR_RDONLY
NO_NAMESPACES = (
    "files, network: this system allows no namespaces ({}), so the code can read and write what you can; "
    "grade as a user of its own or with --isolation container"
)


def _namespaces(folder: str, hidden: list[str], limits: Limits) -> str:
    """Read-only files, `folder` in memory, no network, no view of other processes; why not, or nothing."""
    if sys.platform != "linux":
        return NO_NAMESPACES.format(sys.platform)
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC):
        return NO_NAMESPACES.format(os.strerror(ctypes.get_errno()))
    _first_process_of_its_world()
    try:
        for name, content in (
            ("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")
        ):  # fmt: skip
            Path(f"/proc/self/{name}").write_text(content)
        _mount(libc, "none", "/", "", MS_REC | MS_PRIVATE)
        read_only = libc.syscall(442, -100, b"/", 0x8000, READ_ONLY_BELOW, len(READ_ONLY_BELOW))
        size = f"size={limits.file_mb}m,mode=700"
        _mount(libc, "tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
        for path in hidden:
            if os.path.isdir(path):
                _mount(libc, "tmpfs", path, "tmpfs", MS_RDONLY, "size=4k,mode=000")
            else:
                _mount(libc, "/dev/null", path, "", MS_BIND)
        _mount(libc, "proc", "/proc", "proc", MS_NOSUID | MS_NODEV, needed=False)
    except OSError as error:
        return NO_NAMESPACES.format(error.strerror)
    return "files: this kernel cannot make them read-only" if read_only else ""


def _mount(
    libc, what: str, where: str, kind: str, flags: int, data: str = "", *, needed: bool = True
) -> None:
    if libc.mount(os.fsencode(what), os.fsencode(where), kind.encode(), flags, data.encode()) and needed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _first_process_of_its_world() -> None:
    """Twice the parent waits: outside, and as process 1, with which every other process ends."""
    for _ in range(2):
        child = os.fork()
        if child:
            for handle in (0, 1, 2):
                os.close(handle)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(code if code >= 0 else 128 - code)
        _die_with_the_parent()


# ------------------------------------------------ Linux: system calls that no answer needs

CLONE_THREAD = 0x10000
NUMBERS = {  # per machine: its audit code, then system calls by number
    "x86_64": (0xC000003E, {
        "clone": 56, "fork": 57, "vfork": 58, "kill": 62, "ptrace": 101, "socket": 41, "mount": 165,
        "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "unshare": 272, "setns": 308, "prlimit64": 302,
        "process_vm_readv": 310, "process_vm_writev": 311, "clone3": 435, "pidfd_send_signal": 424,
        "io_uring_setup": 425, "bpf": 321,
    }),
    "aarch64": (0xC00000B7, {
        "clone": 220, "kill": 129, "ptrace": 117, "socket": 198, "mount": 40, "tkill": 130, "tgkill": 131,
        "rt_sigqueueinfo": 138, "unshare": 97, "setns": 268, "prlimit64": 261, "process_vm_readv": 270,
        "process_vm_writev": 271, "clone3": 435, "pidfd_send_signal": 424, "io_uring_setup": 425, "bpf": 280,
    }),
}  # fmt: skip
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, ABSENT = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
NUMBER_AT, MACHINE_AT, ARGUMENT_AT = 0, 4, 16


def _system_calls() -> str:
    """No new process, no socket but a local one, no hand on another process; why not, or nothing."""
    machine = platform.machine()
    why = sys.platform if sys.platform != "linux" else machine if machine not in NUMBERS else ""
    if not why:
        code = b"".join(_filter(*NUMBERS[machine], own=os.getpid()))
        space = ctypes.create_string_buffer(code, len(code))
        program = ctypes.create_string_buffer(
            struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(space))
        )
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        if not libc.prctl(22, 2, program, 0, 0):  # PR_SET_SECCOMP, filter
            return ""
        why = os.strerror(ctypes.get_errno())
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return f"processes, network: no filter of system calls ({why}); new processes are limited to none instead"


def _filter(audit: int, numbers: dict[str, int], *, own: int) -> list[bytes]:
    """The filter in classic BPF: the machine first, then one system call after another."""
    code = [_step(LOAD, MACHINE_AT), _step(EQUAL, audit, 1, 0), _step(RETURN, REFUSE), _step(LOAD, NUMBER_AT)]
    code += [_step(AT_LEAST, 0x40000000, 0, 1), _step(RETURN, REFUSE)]
    for name, number in numbers.items():
        match name:
            case "clone":
                verdict = [_step(LOAD, ARGUMENT_AT), _step(ANY_BIT, CLONE_THREAD, 1, 0)]
            case "kill" | "tgkill":
                verdict = [_step(LOAD, ARGUMENT_AT), _step(EQUAL, own, 1, 0)]
            case "prlimit64":
                verdict = [_step(LOAD, ARGUMENT_AT), _step(EQUAL, 0, 1, 0)]
            case "socket":
                verdict = [_step(LOAD, ARGUMENT_AT), _step(EQUAL, 1, 1, 0)]  # AF_UNIX
            case _:
                verdict = []
        verdict.append(_step(RETURN, ABSENT if name == "clone3" else REFUSE))
        if len(verdict) > 1:
            verdict.append(_step(RETURN, ALLOW))
        code += [_step(EQUAL, number, 0, len(verdict)), *verdict]
    return [*code, _step(RETURN, ALLOW)]


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


# ------------------------------------------------


def fresh_folder() -> tempfile.TemporaryDirectory:
    """An empty working folder for one child."""
    return tempfile.TemporaryDirectory(prefix="sparselab-", ignore_cleanup_errors=True)


if __name__ == "__main__":
    main()
