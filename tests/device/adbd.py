"""The device side of adb over TCP, for tests: the real adb client talks to it.

`python adbd.py ROOT PORT`: shell commands run here with /bin/sh, files are those of this machine under
ROOT. MODE is read from ROOT/mode before every connection and command, so that a test can break things:

    ok             as it should be
    unauthorized   the key is never accepted
    v1             no shell_v2: exit codes are lost
    drop_push      the connection is cut in the middle of a push
    hang_shell     shells start and never answer
    offline        the connection is made and nothing is answered
Protocol: packages/modules/adb/protocol.txt and file_sync_service.h of Android.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION = 0x01000001  # from here on messages carry no checksum
MAX_PAYLOAD = 256 * 1024
TOKEN, PUBLIC_KEY = 1, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
DROP_AFTER = 64 * 1024


class Stream:
    """One service of a connection. One write is under way at a time: the next waits for OKAY."""

    def __init__(self, device: Device, here: int, there: int) -> None:
        self.device, self.here, self.there = device, here, there
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.acknowledged = asyncio.Semaphore(0)
        self.writing = asyncio.Lock()
        self.buffer = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        async with self.writing:
            for start in range(0, len(data), self.device.max_payload):
                if self.closed:
                    raise ConnectionError
                part = data[start : start + self.device.max_payload]
                await self.device.send(WRTE, self.here, self.there, part)
                await self.acknowledged.acquire()

    async def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.incoming.get()
            if data is None:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def end(self) -> None:
        self.closed = True
        self.acknowledged.release()
        self.incoming.put_nowait(None)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.device.streams.pop(self.here, None)
            await self.device.send(CLSE, self.here, self.there)


class Device:
    """One connection of an adb server."""

    def __init__(self, root: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.root, self.reader, self.writer = root, reader, writer
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.version, self.max_payload = 0x01000000, 4096
        self.sending = asyncio.Lock()

    @property
    def mode(self) -> str:
        try:
            return (self.root / "mode").read_text().strip()
        except FileNotFoundError:
            return "ok"

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        async with self.sending:
            checksum = 0 if self.version >= VERSION else sum(data) & 0xFFFFFFFF
            head = struct.pack("<6I", command, first, second, len(data), checksum, command ^ 0xFFFFFFFF)
            self.writer.write(head + data)
            await self.writer.drain()

    async def run(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(24)
                command, first, second, count, _, magic = struct.unpack("<6I", head)
                if magic != command ^ 0xFFFFFFFF:
                    break
                data = await self.reader.readexactly(count) if count else b""
                await self.handle(command, first, second, data)
        for stream in self.streams.values():
            stream.end()
        self.writer.close()

    async def handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.version, self.max_payload = min(first, VERSION), min(second, MAX_PAYLOAD)
            if self.mode == "offline":
                return
            if self.mode == "unauthorized":
                await self.send(AUTH, TOKEN, 0, os.urandom(20))
                return
            features = "cmd" if self.mode == "v1" else "shell_v2,cmd"
            banner = f"device::ro.product.name=edgekit;ro.product.model=EdgekitSim;features={features}"
            await self.send(CNXN, VERSION, MAX_PAYLOAD, banner.encode())
        elif command == AUTH and first != PUBLIC_KEY:  # a signature; the key itself waits for a finger
            await self.send(AUTH, TOKEN, 0, os.urandom(20))
        elif command == OPEN:
            here = max(self.streams, default=0) + 1
            self.streams[here] = stream = Stream(self, here, first)
            task = asyncio.create_task(self.serve(stream, data.rstrip(b"\0").decode()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif command == WRTE and second in self.streams:
            await self.streams[second].incoming.put(data)
            await self.send(OKAY, second, first)
        elif command == OKAY and second in self.streams:
            self.streams[second].acknowledged.release()
        elif command == CLSE and second in self.streams:
            self.streams.pop(second).end()
            await self.send(CLSE, second, first)

    async def serve(self, stream: Stream, service: str) -> None:
        kind, _, rest = service.partition(":")
        words = kind.split(",")
        if words[0] not in ("shell", "exec", "sync"):
            self.streams.pop(stream.here, None)
            await self.send(CLSE, 0, stream.there)
            return
        await self.send(OKAY, stream.here, stream.there)
        with suppress(EOFError, ConnectionError):
            if words[0] == "sync":
                await self.sync(stream)
            else:
                await self.shell(stream, rest, "v2" in words)
        with suppress(ConnectionError):
            await stream.close()

    async def shell(self, stream: Stream, command: str, v2: bool) -> None:
        if self.mode == "hang_shell":
            await asyncio.sleep(3600)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe if v2 else asyncio.subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PATH": f"{self.root}/tools:{os.environ['PATH']}"},
        )
        feeding = asyncio.create_task(self.feed(stream, process, v2))
        pumps = [self.pump(stream, process.stdout, STDOUT, v2)]
        if v2:
            pumps.append(self.pump(stream, process.stderr, STDERR, v2))
        await asyncio.gather(*pumps)
        code = await process.wait()
        feeding.cancel()
        if v2:
            await stream.write(struct.pack("<BIB", EXIT, 1, (code if code >= 0 else 128 - code) & 0xFF))

    async def pump(self, stream: Stream, source: asyncio.StreamReader | None, kind: int, v2: bool) -> None:
        assert source is not None
        while data := await source.read(16384):
            with suppress(ConnectionError):
                await stream.write(struct.pack("<BI", kind, len(data)) + data if v2 else data)

    async def feed(self, stream: Stream, process: asyncio.subprocess.Process, v2: bool) -> None:
        """Standard input of a shell; when the client goes away its pipes close and it gets SIGHUP."""
        assert process.stdin is not None
        try:
            while True:
                kind, count = struct.unpack("<BI", await stream.read(5)) if v2 else (STDIN, 1)
                data = await stream.read(count)
                if kind == STDIN:
                    process.stdin.write(data)
                    await process.stdin.drain()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
        except (EOFError, ConnectionError):
            process.stdin.close()
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGHUP)

    def path(self, name: str) -> Path:
        path = Path(name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise PermissionError(13, "Permission denied", name)
        return path

    async def sync(self, stream: Stream) -> None:
        while True:
            word, count = struct.unpack("<4sI", await stream.read(8))
            if word == b"QUIT":
                return
            name = (await stream.read(count)).decode()
            try:
                await {b"STAT": self.stat, b"RECV": self.receive, b"SEND": self.store}[word](stream, name)
            except OSError as error:
                text = (error.strerror or str(error)).encode()
                await stream.write(b"FAIL" + struct.pack("<I", len(text)) + text)

    async def stat(self, stream: Stream, name: str) -> None:
        try:
            found = self.path(name).lstat()
            values = (found.st_mode, found.st_size, int(found.st_mtime))
        except OSError:
            values = (0, 0, 0)
        await stream.write(b"STAT" + struct.pack("<3I", *values))

    async def receive(self, stream: Stream, name: str) -> None:
        data = self.path(name).read_bytes()
        for start in range(0, len(data), 65536):
            part = data[start : start + 65536]
            await stream.write(b"DATA" + struct.pack("<I", len(part)) + part)
        await stream.write(b"DONE" + bytes(4))

    async def store(self, stream: Stream, spec: str) -> None:
        name, _, mode = spec.rpartition(",")
        content = b""
        while True:
            word, count = struct.unpack("<4sI", await stream.read(8))
            if word == b"DONE":
                break
            content += await stream.read(count)
            if self.mode == "drop_push" and len(content) > DROP_AFTER:
                self.path(name).write_bytes(content)
                (self.root / "mode").write_text("ok\n")
                self.writer.transport.abort()
                return
        path = self.path(name)
        path.write_bytes(content)
        path.chmod(int(mode) & 0o777)
        await stream.write(b"OKAY" + bytes(4))


async def main(root: Path, port: int) -> None:
    server = await asyncio.start_server(lambda r, w: Device(root, r, w).run(), "127.0.0.1", port)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
