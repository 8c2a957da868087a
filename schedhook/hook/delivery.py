"""Hand a scheduler's event to the agent, else to the spool, and be gone.

Every job's start on every host runs this, by way of run.py. It imports built-in modules only (no
os, json, socket, typing: each would cost more than all the rest), reads no configuration, and lets
the agent find out what the event means.

A message is a row of NUL-ended fields: magic, "wait" or "", time, scheduler, point, number of
variables, the variables as NAME=VALUE; after the last NUL come the bytes of standard input.
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
"""Of one message."""
MOST_SPOOLED = 10_000
"""Files in the spool; more means that no agent has run for long."""

ENVIRONMENT_ONLY = ("slurm",)
"""Schedulers whose events are all environment. Their standard input may be the job's own."""
SECRETS = (b"SLURM_JWT", b"PBS_JOBCOOKIE")

_LONGEST_LINE = 1000
_LONGEST_ANSWER = 1 << 16
_TIMEOUT = 3.0
_TIMEOUT_WAIT = 25.0


class NotDelivered(Exception):
    """Nobody has taken the event."""


class Refused(Exception):
    """The agent does not want the event: not this user's job, or unreadable."""


class _Late(Exception):
    pass


def make_message(
    scheduler: str, point: str, environ: dict[bytes, bytes], data: bytes, wait: bool
) -> bytes:
    """The event as it travels. Only variables that begin with the scheduler's name go along."""
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
    """Give the message to the agent; its last word comes back once it has accepted the event, with
    `wait` once it has handled it. NotDelivered where no agent answers, Refused where it will not.
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
            pass  # an agent that reads no more may have said why
        while len(answer) <= _LONGEST_ANSWER:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                part = b""  # it has hung up, with some of the message unread
            answer += part
            accepted = accepted or answer.startswith(b"ok\n")
            if not part or (accepted and not wait):
                break
    except OSError as error:
        if not accepted:
            raise NotDelivered(f"{path}: {error.strerror or error}") from None
        raise Refused("accepted, but not done in time; the agent goes on with it") from None
    finally:
        connection.close()
    lines = answer.decode("utf-8", "replace").split("\n")
    if not accepted:
        if len(answer) > _LONGEST_ANSWER:
            raise NotDelivered(f"{path}: the agent talks without end")
        if lines[0]:
            raise Refused(lines[0])
        raise NotDelivered(f"{path}: the agent hung up")
    return lines[1] if len(lines) > 1 else ""


def _check_server(connection: _socket.socket, path: str) -> None:
    """Only root's agent, or this user's own, gets events; SO_PEERCRED of unix(7)."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    user = int.from_bytes(peer[4:8], sys.byteorder)
    if user not in (0, posix.geteuid()):
        raise NotDelivered(f"{path} is served by user {user}, which is no agent of ours")


def write_spool(message: bytes, directory: str) -> str:
    """Keep the message for an agent to come: complete on the disk, or not there at all. Where."""
    name = f"{directory}/{time.time_ns():020d}-{posix.getpid()}"
    try:
        try:
            posix.mkdir(directory, 0o700)
            posix.chmod(directory, 0o700)  # whatever the umask
        except FileExistsError:
            pass
        check_spool(directory)
        if len(posix.listdir(directory)) >= MOST_SPOOLED:
            raise NotDelivered(f"{directory} is full: does the agent ever run?")
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
    """NotDelivered where others than its owner, this user, could put events into the directory."""
    status = posix.lstat(directory)
    if status.st_mode & 0o170000 != 0o040000:
        raise NotDelivered(f"{directory} is not a directory")
    if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
        raise NotDelivered(f"{directory} has to be this user's own and writable by no other")


def read_input() -> bytes:
    """Standard input, empty where it is closed or a terminal."""
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
    """Agent first, then the spool. What the agent said, or None where it is to be handled in this
    process: nobody answered, and the caller wants to wait."""
    try:
        return send(message, path, timeout, wait)
    except NotDelivered as problem:
        if wait:
            return None
        if posix.geteuid() != 0 and spool == SPOOL:
            raise  # the host's spool is root's
        try:
            write_spool(message, spool)
        except NotDelivered as second:
            raise NotDelivered(f"{problem}; {second}") from None
        words = b" ".join(message.split(b"\0", 5)[3:5]).decode("ascii", "replace")
        _to_syslog(f"{_about(words)}: {problem}; the event waits in {spool}")
        return ""


def handle_here(message: bytes) -> int:
    """Have the event handled by a process with all of schedhook loaded, and wait for it, as long
    as `_limit` lets us: its exit status. It has a session of its own and outlives its parent,
    since schedulers kill a hook's whole process group."""
    # Where it is ignored nobody hears how a child has ended.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    handle = posix.memfd_create("schedhook-event")
    posix.write(handle, message)
    posix.lseek(handle, 0, 0)
    try:
        child = posix.fork()
    except OSError as error:
        raise NotDelivered(f"no process to be had: {error.strerror}") from None
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
    """0 unless --strict and the event was not taken."""
    strict = "--strict" in arguments
    about = _about(" ".join(arguments[:2]))
    try:
        return _run(arguments)
    except (NotDelivered, Refused, _Late) as problem:
        _complain(f"{about}: {problem}")
    except Exception as error:  # noqa: BLE001 - no job is to fail for our bugs
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
    wait = "--wait" in flags
    timeout = float(options.get("--timeout") or (_TIMEOUT_WAIT if wait else _TIMEOUT))
    _limit(timeout)
    _fill_standard_streams()
    data = b"" if scheduler in ENVIRONMENT_ONLY else read_input()
    message = make_message(scheduler, point, posix.environ, data, wait)
    path, spool = options.get("--socket") or SOCKET, options.get("--spool") or SPOOL
    answer = deliver(message, path, spool, timeout, wait)
    if answer is None:
        if handle_here(message):
            raise NotDelivered("handled in process, with the trouble that it has told of")
    elif answer:
        posix.write(1, answer.encode() + b"\n")
    return 0


def _limit(seconds: float) -> None:
    """Whatever hangs (a pipe that never ends, a dead file system) is left after this time."""

    def ring(_number: int, _frame: object) -> None:
        raise _Late(f"not done after {seconds:g} s")

    _signal.signal(_signal.SIGALRM, ring)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    # A moment more than the agent gets, whose silence has a better message.
    _signal.setitimer(_signal.ITIMER_REAL, seconds + 0.5)


def _fill_standard_streams() -> None:
    """No file of ours shall get the number of a stream that was closed before we were started."""
    try:
        while (handle := posix.open("/dev/null", posix.O_RDWR)) <= 2:
            posix.set_inheritable(handle, True)
        posix.close(handle)
    except OSError:
        pass


def _about(words: str) -> str:
    """What a line of the log is about; of PBS's jobs PBS's own log tells."""
    job = posix.environ.get(b"SLURM_JOB_ID", b"").decode("utf-8", "replace")[:40]
    return f"schedhook: {words}: job {job}" if job else f"schedhook: {words}"


def _complain(line: str) -> None:
    try:  # noqa: SIM105
        posix.write(2, _one_line(line).encode() + b"\n")
    except (OSError, _Late):
        pass
    _to_syslog(line)


def _to_syslog(line: str) -> None:
    try:
        import syslog  # noqa: PLC0415 - only where something went wrong

        syslog.syslog(syslog.LOG_WARNING, _one_line(line))
    except Exception:  # noqa: BLE001 - not even memory or a descriptor for it
        pass


def _one_line(text: str) -> str:
    """What others have written must not look like lines of ours."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_LINE])
