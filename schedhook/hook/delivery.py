"""Deliver a scheduler's event to the agent, or to the spool if no agent answers.

Each start of a job on each host runs this, through run.py. It imports built-in modules only: os,
json, socket or typing would each take longer than everything else. It reads no configuration, and
leaves the meaning of the event to the agent.

A message is a sequence of fields, each ended by NUL: magic, "wait" or "", time, scheduler, point,
number of variables, and the variables as NAME=VALUE. The bytes of standard input follow the last
NUL.
"""

import _signal  # type: ignore[import-not-found]  # not in typeshed
import _socket
import posix
import sys
import time

SOCKET = "/run/schedhook/agent.sock"
SPOOL = "/var/spool/schedhook"
MAGIC = b"schedhook-event-1"
MOST_BYTES = 1 << 20
"""The size limit of one message."""
MOST_SPOOLED = 10_000
"""The limit of files in the spool; it is reached if no agent has run for long."""

ENVIRONMENT_ONLY = ("slurm",)
"""Schedulers that pass events in the environment only. Standard input may be the job's own."""
SECRETS = (b"SLURM_JWT", b"PBS_JOBCOOKIE")
"""Variables that are never sent."""

_LONGEST_LINE = 1000
_LONGEST_ANSWER = 1 << 16
_TIMEOUT = 3.0
_TIMEOUT_WAIT = 25.0
_LONGEST_TIMEOUT = 86_400.0


class NotDelivered(Exception):
    """Neither the agent nor the spool has accepted the event."""


class Refused(Exception):
    """The agent refuses the event: it is malformed, or the job is not this user's."""


class _TimedOut(Exception):
    pass


def make_message(
    scheduler: str, point: str, environ: dict[bytes, bytes], data: bytes, wait: bool
) -> bytes:
    """Return the message, with the variables whose names begin with the scheduler's name."""
    prefix = scheduler.upper().encode()
    variables = [
        name + b"=" + value
        for name, value in environ.items()
        if name.startswith(prefix) and name not in SECRETS
    ]
    head = [
        MAGIC,
        b"wait" if wait else b"",
        repr(time.time()).encode(),
        scheduler.encode(),
        point.encode(),
        str(len(variables)).encode(),
        *variables,
    ]
    message = b"\0".join(head) + b"\0" + data
    if len(message) > MOST_BYTES:
        raise NotDelivered(f"the event has {len(message)} bytes, more than {MOST_BYTES}")
    return message


def send(message: bytes, path: str, timeout: float, wait: bool) -> str:
    """Send the message to the agent, and return once it has accepted the event.

    With `wait`, return what the agent says once it has handled the event. Raise NotDelivered if no
    agent answers, Refused if it refuses the event or does not finish in time.
    """
    end = time.monotonic() + timeout
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    accepted = False
    answer = b""
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        _check_server(connection, path)
        try:
            connection.sendall(message)
            connection.shutdown(_socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have answered why it stopped reading
        while len(answer) <= _LONGEST_ANSWER:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                part = b""  # the agent closed the connection before it had read the whole message
            answer += part
            accepted = accepted or answer.startswith(b"ok\n")
            if not part or (accepted and not wait):
                break
    except OSError as error:
        if not accepted:
            raise NotDelivered(f"{path}: {error.strerror or error}") from None
        raise Refused("accepted, but not finished in time; the agent continues") from None
    finally:
        connection.close()
    lines = answer.decode("utf-8", "replace").split("\n")
    if not accepted:
        if len(answer) > _LONGEST_ANSWER:
            raise NotDelivered(f"{path}: the agent's answer has more than {_LONGEST_ANSWER} bytes")
        if lines[0]:
            raise Refused(lines[0])
        raise NotDelivered(f"{path}: the agent closed the connection without an answer")
    return lines[1] if len(lines) > 1 else ""


def _check_server(connection: _socket.socket, path: str) -> None:
    """Raise NotDelivered unless the agent is root's or this user's; see SO_PEERCRED in unix(7)."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    user = int.from_bytes(peer[4:8], sys.byteorder)
    if user not in (0, posix.geteuid()):
        raise NotDelivered(f"refusing untrusted agent: {path} is served by uid {user}")


def write_spool(message: bytes, directory: str) -> str:
    """Write the message to the spool atomically, and return its path."""
    name = f"{directory}/{time.time_ns():020d}-{posix.getpid()}"
    try:
        try:
            posix.mkdir(directory, 0o700)
            posix.chmod(directory, 0o700)  # the umask may have removed bits
        except FileExistsError:
            pass
        check_spool(directory)
        if len(posix.listdir(directory)) >= MOST_SPOOLED:
            raise NotDelivered(
                f"{directory} is full: it has {MOST_SPOOLED} events; start the agent"
            )
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        handle = posix.open(name + ".tmp", flags, 0o600)
        try:
            left = memoryview(message)
            while left:
                left = left[posix.write(handle, left) :]
            posix.fsync(handle)
        except BaseException:
            posix.unlink(name + ".tmp")
            raise
        finally:
            posix.close(handle)
        posix.rename(name + ".tmp", name + ".event")
        handle = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            posix.fsync(handle)
        finally:
            posix.close(handle)
    except OSError as error:
        raise NotDelivered(f"{directory}: {error.strerror}") from None
    return name + ".event"


def check_spool(directory: str) -> None:
    """Raise NotDelivered unless the directory is this user's and no other user can write to it."""
    status = posix.lstat(directory)
    if status.st_mode & 0o170000 != 0o040000:
        raise NotDelivered(f"{directory} is not a directory")
    if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
        raise NotDelivered(f"{directory} must belong to this user and be writable by no other user")


def read_input() -> bytes:
    """Return standard input, empty if it is closed or a terminal."""
    parts = []
    size = 0
    try:
        if posix.isatty(0):
            return b""
        while part := posix.read(0, 65536):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise NotDelivered(f"standard input has more than {MOST_BYTES} bytes")
    except OSError:
        return b""
    return b"".join(parts)


def deliver(message: bytes, path: str, spool: str, timeout: float, wait: bool) -> str | None:
    """Deliver the message to the agent, else to the spool; return the agent's answer.

    The answer is empty for the spool. Return None if no agent answers and the caller waits for the
    result: then the event must be handled without an agent.
    """
    try:
        return send(message, path, timeout, wait)
    except NotDelivered as problem:
        if wait:
            return None
        if posix.geteuid() != 0 and spool == SPOOL:
            raise  # the host's spool belongs to root
        try:
            write_spool(message, spool)
        except NotDelivered as second:
            raise NotDelivered(f"{problem}; {second}") from None
        words = b" ".join(message.split(b"\0", 5)[3:5]).decode("ascii", "replace")
        _to_syslog(f"{_about(words)}: {problem}; the event is kept in {spool} for the agent")
        return ""


def handle_here(message: bytes) -> int:
    """Handle the event in a child process that loads all of schedhook; return its exit status.

    `_limit` limits the wait. The child has its own session and outlives this process, since
    schedulers kill a hook's whole process group.
    """
    # If SIGCHLD is ignored, the kernel discards the child's exit status.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    handle = posix.memfd_create("schedhook-event")
    posix.write(handle, message)
    posix.lseek(handle, 0, 0)
    try:
        child = posix.fork()
    except OSError as error:
        raise NotDelivered(f"cannot start a process: {error.strerror}") from None
    if child == 0:
        try:
            posix.setsid()
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            posix.dup2(handle, 0)
            home = __file__.rsplit("/", 3)[0]
            program = (
                "import sys; sys.path.append(sys.argv[1]); import schedhook.agent.oneshot as it"
            )
            posix.execv(
                sys.executable,
                [sys.executable, "-I", "-c", f"{program}; sys.exit(it.main())", home],
            )
        finally:
            posix._exit(1)
    return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])


def main(arguments: list[str]) -> int:
    """Return the exit status: 0, or 1 if the event was not accepted and --strict was given."""
    strict = "--strict" in arguments
    about = _about(" ".join(arguments[:2]))
    try:
        return _run(arguments)
    except (NotDelivered, Refused, _TimedOut) as problem:
        _complain(f"{about}: {problem}")
    except Exception as error:  # noqa: BLE001 - a bug here must not fail a job
        _complain(f"{about}: {type(error).__name__}: {error}")
    return 1 if strict else 0


def _run(arguments: list[str]) -> int:
    words, options, flags = [], {}, set()
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in ("--wait", "--strict"):
            flags.add(word)
        elif name in ("--socket", "--spool", "--timeout"):
            options[name] = value if equals else next(rest, "")
        else:
            words.append(word)
    if len(words) != 2 or any(word.startswith("-") for word in words):
        raise NotDelivered(
            "usage: run.py SCHEDULER POINT [--wait] [--strict] [--timeout SECONDS]"
            " [--socket PATH] [--spool DIRECTORY]"
        )
    scheduler, point = words
    for word in words:
        if not _is_name(word):
            raise NotDelivered(f"{word[:64]!r} is not the name of a scheduler or of its hook")
    wait = "--wait" in flags
    timeout = _seconds(options.get("--timeout") or (_TIMEOUT_WAIT if wait else _TIMEOUT))
    _limit(timeout)
    _fill_standard_streams()
    data = b"" if scheduler in ENVIRONMENT_ONLY else read_input()
    message = make_message(scheduler, point, posix.environ, data, wait)
    path, spool = options.get("--socket") or SOCKET, options.get("--spool") or SPOOL
    answer = deliver(message, path, spool, timeout, wait)
    if answer is None:
        if handle_here(message):
            raise NotDelivered("handled without an agent; failed, see the messages above")
    elif answer:
        posix.write(1, answer.encode() + b"\n")
    return 0


def _is_name(word: str) -> bool:
    """Return whether the agent takes the word for a name; see `parse_message`."""
    letters = word.replace("_", "a").replace("-", "a").replace(".", "a")
    return word[:1].isalpha() and letters.isalnum() and word.isascii() and len(word) <= 64


def _seconds(text: str | float) -> float:
    """Return a time in seconds. Raise NotDelivered for what is no time that can be waited."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise NotDelivered(f"--timeout {text}: give seconds, from 0.1 to {_LONGEST_TIMEOUT:g}")
    return seconds


def _limit(seconds: float) -> None:
    """Give up after this time, whatever hangs: a pipe that never ends, a dead file system."""

    def time_out(_number: int, _frame: object) -> None:
        raise _TimedOut(f"not finished after {seconds:g} s")

    _signal.signal(_signal.SIGALRM, time_out)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    # Slightly later than the timeout for the agent, whose message is more specific.
    _signal.setitimer(_signal.ITIMER_REAL, seconds + 0.5)


def _fill_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed, so that no file gets its number."""
    try:
        while (handle := posix.open("/dev/null", posix.O_RDWR)) <= 2:
            posix.set_inheritable(handle, True)
        posix.close(handle)
    except OSError:
        pass


def _about(words: str) -> str:
    """Return the beginning of a log line, with the job if it is Slurm's; PBS logs its own."""
    job = posix.environ.get(b"SLURM_JOB_ID", b"").decode("utf-8", "replace")[:40]
    return f"schedhook: {words}: job {job}" if job else f"schedhook: {words}"


def _complain(line: str) -> None:
    try:  # noqa: SIM105
        posix.write(2, _one_line(line).encode() + b"\n")
    except (OSError, _TimedOut):
        pass
    _to_syslog(line)


def _to_syslog(line: str) -> None:
    try:
        import syslog  # noqa: PLC0415 - only needed after a failure

        syslog.syslog(syslog.LOG_WARNING, _one_line(line))
    except Exception:  # noqa: BLE001 - there may be no memory or descriptor left
        pass


def _one_line(text: str) -> str:
    """Return one printable line, so that text from elsewhere cannot imitate a log line."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_LINE])
