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

MYPY = False
if MYPY:  # as typing.TYPE_CHECKING, without an import
    from types import ModuleType

SOCKET = "/run/schedhook/agent.sock"
SPOOL = "/var/spool/schedhook"
MAGIC = b"schedhook-event-1"
HANDED_OVER = "handed over"
"""What is said of an event that the agent has accepted."""
MOST_BYTES = 1 << 20
"""The size limit of one message."""

ENVIRONMENT_ONLY = ("slurm",)
"""Schedulers that pass events in the environment only. Standard input may be the job's own."""
SECRETS = (b"SLURM_JWT", b"PBS_JOBCOOKIE")
"""Variables that are never sent."""

CHOICE = b"SCHEDHOOK"
"""The variable in which a job says what it wants; schedhook.jobs.choice."""

_LONGEST_LINE = 1000
_LONGEST_ANSWER = 1 << 16
_TIMEOUT = 3.0
_TIMEOUT_WAIT = 25.0
_PATIENCE = 0.05
"""Seconds for the agent to accept an event, which takes it milliseconds. After that the event goes
to the spool as well and counts once, so an agent that hangs does not hold up the start of jobs."""
_PATIENCE_WAIT = 0.7
"""The same if the caller waits for the result, which is worth more patience: an agent whose journal
is locked takes half a second."""
_LATE = 3.0
"""An agent that has left events in the spool for so many seconds hangs, and gets `_PATIENCE`."""
_LONGEST_TIMEOUT = 86_400.0


class NotDelivered(Exception):
    """Neither the agent nor the spool has accepted the event."""


class NotAnswered(NotDelivered):
    """An agent is there, and has not accepted the event in time."""


class Refused(Exception):
    """The agent refuses the event: it is malformed, or the job is not this user's."""


class _TimedOut(Exception):
    pass


def make_message(
    scheduler: str, point: str, environ: dict[bytes, bytes], data: bytes, wait: bool
) -> bytes:
    """Return the message, with SCHEDHOOK and what begins with the scheduler's name."""
    prefix = scheduler.upper().encode()
    variables = [
        name + b"=" + value
        for name, value in environ.items()
        if (name.startswith(prefix) or name == CHOICE) and name not in SECRETS
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


def send(message: bytes, path: str, timeout: float, wait: bool, patience: float) -> str:
    """Send the message to the agent, and return once it has accepted the event.

    With `wait`, return what the agent says once it has handled the event. Raise NotDelivered if no
    agent accepts it within `patience` seconds, Refused if the agent refuses the event, or has not
    handled it after `timeout` seconds.
    """
    begin = time.monotonic()
    end = begin + timeout
    patience = min(patience, timeout / 2)  # the rest is for the spool
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    accepted = False
    answer = b""
    try:
        connection.settimeout(patience)
        connection.connect(path)
        _check_server(connection, path)
        try:
            connection.sendall(message)
            connection.shutdown(_socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have answered why it stopped reading
        while len(answer) <= _LONGEST_ANSWER:
            until = end if accepted else begin + patience
            connection.settimeout(max(until - time.monotonic(), 0.001))
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                part = b""  # the agent closed the connection before it had read the whole message
            answer += part
            accepted = accepted or answer.startswith(b"ok\n")
            if not part or (accepted and not wait):
                break
    except TimeoutError:
        if not accepted:
            raise NotAnswered(f"{path}: the agent has not answered for {patience:g} s") from None
        raise Refused("accepted, but not finished in time; the agent continues") from None
    except OSError as error:
        if not accepted:
            raise NotDelivered(f"{path}: {error.strerror or error}") from None
        raise Refused("accepted, but the connection to the agent is lost") from None
    finally:
        connection.close()
    lines = answer.decode("utf-8", "replace").split("\n")
    if not accepted:
        if len(answer) > _LONGEST_ANSWER:
            raise NotDelivered(f"{path}: the agent's answer has more than {_LONGEST_ANSWER} bytes")
        if lines[0]:
            raise Refused(lines[0])
        raise NotDelivered(f"{path}: the agent closed the connection without an answer")
    return (lines[1] if len(lines) > 1 else "") or HANDED_OVER


def _check_server(connection: _socket.socket, path: str) -> None:
    """Raise NotDelivered unless the agent is root's or this user's; see SO_PEERCRED in unix(7)."""
    peer = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    user = int.from_bytes(peer[4:8], sys.byteorder)
    if user not in (0, posix.geteuid()):
        raise NotDelivered(f"refusing untrusted agent: {path} is served by uid {user}")


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


def deliver(
    message: bytes, path: str, spool: str, timeout: float, wait: bool, patience: float
) -> str | None:
    """Deliver the message to the agent, else to the spool; return what became of it, in one line.

    Return None if no agent accepts it and the caller waits for the result: then the event must be
    handled without an agent. If one is there that hangs, the spool has the event as well.
    """
    has_spool = posix.geteuid() == 0 or spool != SPOOL  # the host's spool belongs to root
    if wait and _seconds_in_spool(spool) > _LATE:
        patience = min(patience, _PATIENCE)
    elif not has_spool and b"\0" + CHOICE + b"=" in message:
        patience = max(patience, _PATIENCE_WAIT)  # else the job's choice would be lost
    try:
        return send(message, path, timeout, wait, patience)
    except NotDelivered as problem:
        if wait and not isinstance(problem, NotAnswered):
            return None
        if not has_spool:
            if wait:
                return None
            raise
        fallback = _import_fallback()
        try:
            fallback.write_spool(message, spool)
        except fallback.NotKept as second:
            if wait:
                return None
            if not isinstance(problem, NotAnswered):
                raise NotDelivered(f"{problem}; {second}") from None
            # Only the agent can take it now, which may be busy with the events in a full spool.
            try:
                return send(message, path, timeout, wait, _PATIENCE_WAIT)
            except NotDelivered as third:
                raise NotDelivered(f"{third}; {second}") from None
        kept = f"{problem}; the event is kept in {spool} for the agent"
        words = b" ".join(message.split(b"\0", 5)[3:5]).decode("ascii", "replace")
        _to_syslog(f"{_about(words)}: {kept}")
        return None if wait else kept


def _seconds_in_spool(spool: str) -> float:
    """Return for how many seconds the oldest event there has waited; 0 if there is none."""
    try:
        names = [name for name in posix.listdir(spool) if name.endswith(".event")]
        return time.time() - int(min(names)[:20]) / 1e9 if names else 0.0
    except (OSError, ValueError):  # not there, not ours to read, not a name of `write_spool`
        return 0.0


def _import_fallback() -> "ModuleType":
    """Return the module `fallback`, which few hooks need."""
    if __name__ == "delivery":  # as run.py imports it
        return __import__("fallback")
    from schedhook.hook import fallback  # noqa: PLC0415

    return fallback


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
        elif name in ("--socket", "--spool", "--timeout", "--patience"):
            options[name] = value if equals else next(rest, "")
        else:
            words.append(word)
    if len(words) != 2 or any(word.startswith("-") for word in words):
        raise NotDelivered(
            "usage: run.py SCHEDULER POINT [--wait] [--strict] [--timeout SECONDS]"
            " [--patience SECONDS] [--socket PATH] [--spool DIRECTORY]"
        )
    scheduler, point = words
    for word in words:
        if not _is_name(word):
            raise NotDelivered(f"{word[:64]!r} is not the name of a scheduler or of its hook")
    wait = "--wait" in flags
    timeout = _seconds(options, "--timeout", _TIMEOUT_WAIT if wait else _TIMEOUT)
    patience = _seconds(options, "--patience", _PATIENCE_WAIT if wait else _PATIENCE)
    _limit(timeout)
    _fill_standard_streams()
    data = b"" if scheduler in ENVIRONMENT_ONLY else read_input()
    message = make_message(scheduler, point, posix.environ, data, wait)
    path, spool = options.get("--socket") or SOCKET, options.get("--spool") or SPOOL
    answer = deliver(message, path, spool, timeout, wait, patience)
    if answer is None:
        _handle_here(message)
    elif wait or scheduler not in ENVIRONMENT_ONLY:  # Slurm obeys what a TaskProlog prints
        posix.write(1, answer.encode() + b"\n")
    return 0


def _handle_here(message: bytes) -> None:
    try:
        status = _import_fallback().handle_here(message)
    except _TimedOut as error:
        raise _TimedOut(f"no agent answers; handled without it, {error}, it goes on") from None
    except OSError as error:
        raise NotDelivered(f"cannot start a process: {error.strerror}") from None
    if status:
        raise NotDelivered("handled without an agent; failed, see the messages above")


def _is_name(word: str) -> bool:
    """Return whether the agent takes the word for a name; see `parse_message`."""
    letters = word.replace("_", "a").replace("-", "a").replace(".", "a")
    return word[:1].isalpha() and letters.isalnum() and word.isascii() and len(word) <= 64


def _seconds(options: dict[str, str], name: str, default: float) -> float:
    """Return a time in seconds. Raise NotDelivered for what is no time that can be waited."""
    text = options.get(name) or default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise NotDelivered(f"{name} {text}: give seconds, from 0.1 to {_LONGEST_TIMEOUT:g}")
    return seconds


def _limit(seconds: float) -> None:
    """Give up after this time, whatever hangs: a pipe that never ends, a dead file system."""

    def time_out(_number: int, _frame: object) -> None:
        raise _TimedOut(f"not finished after {seconds:g} s")

    _signal.signal(_signal.SIGALRM, time_out)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
    # Slightly later than the timeout for the agent, whose message is more specific.
    _signal.setitimer(_signal.ITIMER_REAL, seconds + min(0.5, seconds / 8))


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
