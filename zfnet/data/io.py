"""Safe file access by several processes: atomic writes and locks."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

LONGEST_START = 200  # bytes of a file's name in that of its partial file
STALE_AFTER = 24 * 3600.0  # seconds without a change after which a partial file has no writer


def expand_path(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder, as a shell does.

    A name that only begins with `~`, such as "~$notes.jpg", does not change.

    Args:
        path: The path.

    Example:
        >>> expand_path("~/photos") == Path.home() / "photos"
        True
    """
    return Path(os.path.expanduser(path))


def encode_name(name: str) -> bytes:
    """Return the bytes of a file name, which may be no valid UTF-8. Its inverse is `decode_name`.

    Unlike `os.fsencode`, it does not depend on the platform.

    Args:
        name: A name as `os.listdir` returns it.

    Example:
        >>> encode_name("cat")
        b'cat'
    """
    return name.encode(errors="surrogateescape")


def decode_name(name: bytes) -> str:
    """Return a file name from its bytes, as `os.listdir` does.

    Args:
        name: The bytes, which may be no valid UTF-8.

    Example:
        >>> decode_name(b"cat")
        'cat'
    """
    return name.decode(errors="surrogateescape")


def printable_name(name: str) -> str:
    r"""Return a file name as text that can be printed, drawn and written as UTF-8.

    Bytes that are no UTF-8 become escapes, and so do control characters.

    Args:
        name: A name as `os.listdir` returns it.

    Example:
        >>> printable_name("line\nbreak")
        'line\\nbreak'
    """
    text = encode_name(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def atomic_write(path: Path, stale_after: float = STALE_AFTER) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends without an error.

    Readers see the old or the new file, never a partial one. Each writer has its own
    temporary file in the same folder. Processes may write at once; the last one wins.
    A symbolic link is kept, and its target is replaced.

    Args:
        path: The file to write. Missing parent folders are created.
        stale_after: Age in seconds at which the temporary files of killed writers are removed.

    Yields:
        The temporary path to write to.

    Raises:
        FileExistsError: `path` exists and is not a regular file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_write(path) as partial:
        ...     _ = partial.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    path = expand_path(path).resolve()
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{path} exists and is not a regular file; choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = (
        f".{decode_name(encode_name(path.name)[:LONGEST_START])}."  # names have at most 255 bytes
    )
    for abandoned in path.parent.glob(f"{glob.escape(start)}*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - abandoned.stat().st_mtime >= stale_after:
                abandoned.unlink()
    partial = path.with_name(f"{start}{uuid4().hex[:12]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Bytes that are not valid UTF-8 become escapes."""
    with atomic_write(path) as partial:
        partial.write_text(text, "utf-8", errors="backslashreplace")


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock between processes. It is released when the process dies.

    The empty lock file stays in its folder: removing it could give two processes the lock.

    Args:
        path: The lock file. It is created if it is missing.
        wait: Wait until no other process holds the lock. False raises an error instead.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is False.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with file_lock(path):
        ...     pass  # no other process is in such a block now
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(f"{path} is locked by another process") from None
    try:
        yield
    finally:
        lock.release()
