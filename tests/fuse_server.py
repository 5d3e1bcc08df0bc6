"""A file system that passes everything through to the folder it is mounted over, but for what it is told to lack.

A program of its own, of the standard library alone, that `tests/odd_disks.py` starts. It speaks the protocol of /dev/fuse, which
<linux/fuse.h> defines: one request after another, nothing cached, so that what is done below it is seen at once. It unmounts and
ends when its standard input does, as it does when whoever started it is killed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MINOR = 31
"""Of the protocol's version 7; a newer kernel speaks as it did then."""

MAX_WRITE = 1 << 20
BUFFER = MAX_WRITE + 8192

HEADER = struct.Struct("<IIQQIIII")
"""Of a request: length, opcode, its number, node, user, group, process, extensions."""

ANSWER = struct.Struct("<IiQ")
"""Before an answer: length, errno as a negative number, the request's number."""

BIG_WRITES, ATOMIC_O_TRUNC, MAX_PAGES = 1 << 5, 1 << 3, 1 << 22

FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
"""The requests that nobody waits for."""

MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Lacks:
    """What a file system lacks: each one the errno that is answered instead, or None."""

    links: int | None = None
    """link(2): ENOSYS as by sshfs and s3fs, of which newer kernels make EPERM; EPERM as by exFAT; EOPNOTSUPP as by CIFS."""
    folder_sync: int | None = None
    """fsync(2) of a folder: EINVAL as by some CIFS and FUSE mounts. ENOSYS would not be seen: Linux makes a success of it."""
    tmpfile: int | None = None
    """A file without a name (O_TMPFILE): EOPNOTSUPP as by NFS."""
    long_names: int | None = None
    """No errno, but the bytes of the longest name: 143 as by eCryptfs."""
    lies: bool = False
    """statfs(2) says 255, however long a name may be."""


class Node:
    """A file that the kernel knows: a descriptor that leads to it, whatever name it has by now."""

    def __init__(self, descriptor: int, key: tuple[int, int]) -> None:
        self.descriptor = descriptor
        self.key = key
        self.lookups = 0

    @property
    def path(self) -> str:
        """What leads to the file itself, also for calls that take no descriptor."""
        return f"/proc/self/fd/{self.descriptor}"


@dataclass
class Request:
    """What is asked of a node, and for whom."""

    node: int
    user: int
    group: int
    body: bytes

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """The numbers that it begins with."""
        return struct.unpack_from("<" + layout, self.body)

    def texts(self, after: str = "") -> list[bytes]:
        """The names that come after its numbers."""
        return self.body[struct.calcsize("<" + after) :].split(b"\0")[:-1]


class Server:
    """Each request has a method here, found by its opcode: it returns what to answer, and raises OSError to refuse."""

    def __init__(self, folder: int, lacks: Lacks) -> None:
        self._lacks = lacks
        self._longest = lacks.long_names or os.fstatvfs(folder).f_namemax
        self._nodes: dict[int, Node] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._next = 1
        self._listings: dict[int, list[bytes]] = {}
        self._remember(folder)  # the root is node 1

    def serve(self, device: int) -> None:
        """Until it is unmounted, or standard input ends."""
        waiting = select.poll()
        waiting.register(device, select.POLLIN)
        waiting.register(sys.stdin.fileno(), 0)
        while not any(ready == sys.stdin.fileno() for ready, _ in waiting.poll()):
            try:
                message = os.read(device, BUFFER)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # a request that was taken back
                    raise
                continue
            length, opcode, number, node, user, group, *_ = HEADER.unpack_from(message)
            code, answer = self._answer(opcode, Request(node, user, group, message[HEADER.size : length]))
            if opcode not in (FORGET, INTERRUPT, BATCH_FORGET):
                with suppress(FileNotFoundError):  # who asked has been killed
                    os.write(device, ANSWER.pack(ANSWER.size + len(answer), -code, number) + answer)

    def _answer(self, opcode: int, request: Request) -> tuple[int, bytes]:
        method = METHODS.get(opcode)
        if method is None:
            return errno.ENOSYS, b""
        try:
            return 0, method(self, request)
        except OSError as error:
            return error.errno or errno.EIO, b""

    # --- nodes

    def _remember(self, descriptor: int) -> int:
        found = os.fstat(descriptor)
        key = (found.st_dev, found.st_ino)
        if (number := self._numbers.get(key)) is not None:
            os.close(descriptor)
        else:
            number, self._next = self._next, self._next + 1
            self._nodes[number] = Node(descriptor, key)
            self._numbers[key] = number
        self._nodes[number].lookups += 1
        return number

    def _forget(self, number: int, lookups: int) -> None:
        node = self._nodes[number]
        node.lookups -= lookups
        if node.lookups <= 0:
            del self._nodes[number], self._numbers[node.key]
            os.close(node.descriptor)

    def _folder(self, number: int) -> int:
        return self._nodes[number].descriptor

    def _name(self, name: bytes) -> bytes:
        if len(name) > self._longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return name

    def _entry(self, folder: int, name: bytes) -> bytes:
        """The answer for a name that is there."""
        return self._entry_of(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder))

    def _entry_of(self, descriptor: int) -> bytes:
        number = self._remember(descriptor)
        return struct.pack("<4Q2I", number, 0, 0, 0, 0, 0) + self._attributes(number)

    def _attributes(self, number: int) -> bytes:
        found = os.fstat(self._nodes[number].descriptor)
        times = [divmod(time_ns, 10**9) for time_ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        return struct.pack(
            "<6Q10I",
            *(found.st_ino, found.st_size, found.st_blocks),
            *(seconds for seconds, _ in times),
            *(nanoseconds for _, nanoseconds in times),
            *(found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_blksize),
            0,
        )

    # --- requests

    def init(self, request: Request) -> bytes:
        _, _, readahead = request.unpack("3I")
        flags = BIG_WRITES | ATOMIC_O_TRUNC | MAX_PAGES
        return struct.pack("<4I2H2I2H8I", 7, MINOR, readahead, flags, 16, 12, MAX_WRITE, 1, MAX_WRITE // 4096, *[0] * 9)

    def lookup(self, request: Request) -> bytes:
        (name,) = request.texts()
        return self._entry(self._folder(request.node), self._name(name))

    def forget(self, request: Request) -> bytes:
        self._forget(request.node, *request.unpack("Q"))
        return b""

    def batch_forget(self, request: Request) -> bytes:
        count, _ = request.unpack("2I")
        for number, lookups in struct.iter_unpack("<2Q", request.body[8 : 8 + 16 * count]):
            self._forget(number, lookups)
        return b""

    def getattr(self, request: Request) -> bytes:
        return bytes(16) + self._attributes(request.node)

    def setattr(self, request: Request) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, user, group, _ = request.unpack("2I6Q8I")
        path = self._nodes[request.node].path
        if valid & 1:
            Path(path).chmod(stat.S_IMODE(mode))
        if valid & 6:
            os.chown(path, user if valid & 2 else -1, group if valid & 4 else -1)
        if valid & 8:
            os.truncate(path, size)
        if valid & (16 | 32):
            found = os.fstat(self._nodes[request.node].descriptor)
            now = time.time_ns()
            accessed = now if valid & 128 else atime * 10**9 + atime_ns if valid & 16 else found.st_atime_ns
            changed = now if valid & 256 else mtime * 10**9 + mtime_ns if valid & 32 else found.st_mtime_ns
            os.utime(path, ns=(accessed, changed))
        return self.getattr(request)

    def readlink(self, request: Request) -> bytes:
        return os.readlink(b"", dir_fd=self._nodes[request.node].descriptor)

    def symlink(self, request: Request) -> bytes:
        name, target = request.texts()
        return self._made(request, name, lambda folder: os.symlink(target, name, dir_fd=folder))

    def mknod(self, request: Request) -> bytes:
        mode, device, _, _ = request.unpack("4I")
        (name,) = request.texts("4I")
        return self._made(request, name, lambda folder: os.mknod(name, mode, device, dir_fd=folder))

    def mkdir(self, request: Request) -> bytes:
        mode, _ = request.unpack("2I")
        (name,) = request.texts("2I")
        return self._made(request, name, lambda folder: os.mkdir(name, mode, dir_fd=folder))

    def _made(self, request: Request, name: bytes, make: Callable[[int], None]) -> bytes:
        """Make it as root, and then let it be of whoever asked."""
        self._name(name)
        folder = self._folder(request.node)
        make(folder)
        os.chown(name, request.user, request.group, dir_fd=folder, follow_symlinks=False)
        return self._entry(folder, name)

    def unlink(self, request: Request) -> bytes:
        (name,) = request.texts()
        os.unlink(self._name(name), dir_fd=self._folder(request.node))
        return b""

    def rmdir(self, request: Request) -> bytes:
        (name,) = request.texts()
        os.rmdir(self._name(name), dir_fd=self._folder(request.node))
        return b""

    def rename(self, request: Request) -> bytes:
        (target,) = request.unpack("Q")
        return self._rename(request, target, 0, request.texts("Q"))

    def rename2(self, request: Request) -> bytes:
        target, flags, _ = request.unpack("Q2I")
        return self._rename(request, target, flags, request.texts("Q2I"))

    def _rename(self, request: Request, target: int, flags: int, names: list[bytes]) -> bytes:
        old, new = map(self._name, names)
        checked(_libc.renameat2(self._folder(request.node), old, self._folder(target), new, flags))
        return b""

    def link(self, request: Request) -> bytes:
        (linked,) = request.unpack("Q")
        (name,) = request.texts("Q")
        refuse(self._lacks.links)
        folder = self._folder(request.node)
        os.link(self._nodes[linked].path, self._name(name), dst_dir_fd=folder, follow_symlinks=True)
        return self._entry(folder, name)

    def open(self, request: Request) -> bytes:
        flags, _ = request.unpack("2I")
        return opened(os.open(self._nodes[request.node].path, flags & ~NOT_OURS))

    def create(self, request: Request) -> bytes:
        flags, mode, _, _ = request.unpack("4I")
        (name,) = request.texts("4I")
        folder = self._folder(request.node)
        file = os.open(self._name(name), flags & ~NOT_OURS | os.O_CREAT | os.O_NOFOLLOW, stat.S_IMODE(mode), dir_fd=folder)
        os.fchown(file, request.user, request.group)
        return self._entry(folder, name) + opened(file)

    def tmpfile(self, request: Request) -> bytes:
        flags, mode, _, _ = request.unpack("4I")
        refuse(self._lacks.tmpfile)
        folder = self._folder(request.node)
        file = os.open(".", flags & ~NOT_OURS & ~os.O_CREAT | os.O_TMPFILE, stat.S_IMODE(mode), dir_fd=folder)
        os.fchown(file, request.user, request.group)
        return self._entry_of(os.open(f"/proc/self/fd/{file}", os.O_PATH)) + opened(file)

    def read(self, request: Request) -> bytes:
        file, offset, size = request.unpack("2QI")
        return os.pread(file, size, offset)

    def write(self, request: Request) -> bytes:
        layout = "2Q2IQ2I"
        file, offset, size, *_ = request.unpack(layout)
        begin = struct.calcsize("<" + layout)
        return struct.pack("<2I", os.pwrite(file, memoryview(request.body)[begin : begin + size], offset), 0)

    def release(self, request: Request) -> bytes:
        (file,) = request.unpack("Q")
        self._listings.pop(file, None)
        os.close(file)
        return b""

    def fsync(self, request: Request) -> bytes:
        file, _, _ = request.unpack("Q2I")
        os.fsync(file)
        return b""

    def fsyncdir(self, request: Request) -> bytes:
        refuse(self._lacks.folder_sync)
        return self.fsync(request)

    def opendir(self, request: Request) -> bytes:
        return opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._folder(request.node)))

    def readdir(self, request: Request) -> bytes:
        file, offset, size = request.unpack("2QI")
        if offset == 0:
            with os.scandir(file) as entries:
                self._listings[file] = [listed(entry, number) for number, entry in enumerate(entries, 1)]
        answer = b""
        for entry in self._listings[file][offset:]:
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def statfs(self, request: Request) -> bytes:
        found = os.fstatvfs(self._folder(request.node))
        longest = 255 if self._lacks.lies else self._longest
        space = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<5Q10I", *space, found.f_bsize, longest, found.f_frsize, *[0] * 7)


NOT_OURS = os.O_APPEND | os.O_DIRECT | os.O_NOFOLLOW
"""Flags of open(2) that are the kernel's business here: it says where an append goes, and that this is no link."""


def opened(file: int) -> bytes:
    """The answer that gives a descriptor of ours to the kernel, which sends it back with each request and with the last one."""
    return struct.pack("<Q2I", file, 0, 0)


def listed(entry: os.DirEntry[str], number: int) -> bytes:
    """One name of a folder, with where the next one begins."""
    name = os.fsencode(entry.name)
    kind = stat.S_IFLNK if entry.is_symlink() else stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else 0
    head = struct.pack("<2Q2I", entry.inode(), number, len(name), kind >> 12)
    return head + name + bytes(-len(name) % 8)


def refuse(code: int | None) -> None:
    """Answer with this errno, if there is one."""
    if code is not None:
        raise OSError(code, os.strerror(code))


def checked(result: int) -> None:
    """What a function of the C library returned."""
    if result != 0:
        refuse(ctypes.get_errno())


METHODS: dict[int, Callable[[Server, Request], bytes]] = {
    1: Server.lookup, FORGET: Server.forget, 3: Server.getattr, 4: Server.setattr, 5: Server.readlink, 6: Server.symlink,
    8: Server.mknod, 9: Server.mkdir, 10: Server.unlink, 11: Server.rmdir, 12: Server.rename, 13: Server.link, 14: Server.open,
    15: Server.read, 16: Server.write, 17: Server.statfs, 18: Server.release, 20: Server.fsync, 26: Server.init,
    27: Server.opendir, 28: Server.readdir, 29: Server.release, 30: Server.fsyncdir, 35: Server.create,
    BATCH_FORGET: Server.batch_forget, 45: Server.rename2, 51: Server.tmpfile,
}  # fmt: skip
"""By opcode. Of others, such as extended attributes, the kernel is told ENOSYS, and does without."""


def mount(path: str) -> int:
    """The file system of whoever answers the descriptor that is returned."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
    checked(_libc.mount(b"odd_disk", os.fsencode(path), b"fuse.odd_disk", MS_NOSUID | MS_NODEV, options.encode()))
    return device


def main(path: str, lacks: Lacks) -> None:
    """Mount, say so, or why not, on standard output, and serve."""
    os.umask(0)  # the kernel has taken that of whoever asks into account
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    server = Server(os.open(path, os.O_PATH | os.O_DIRECTORY), lacks)
    try:
        device = mount(path)
    except OSError as error:
        print(error)
        return
    try:
        print("mounted", flush=True)
        server.serve(device)
    finally:
        # Whatever is still open there is no reason to wait: it fails from now on.
        _libc.umount2(os.fsencode(path), MNT_DETACH)


if __name__ == "__main__":
    main(sys.argv[1], Lacks(**json.loads(sys.argv[2])))
