"""The stored words of slices, read from their files one frame at a time."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from nognet.data.ct.codec import decode_frame, frame_spans
from nognet.data.ct.dicom_file import PixelElement, opened
from nognet.data.ct.header import BIG_ENDIAN, SliceHeader, is_compressed
from nognet.errors import SiteDataError

Words = NDArray[np.uint16] | NDArray[np.uint32]


class FrameReader:
    """Reads frames; keeps the file of the last one open, for multi-frame files are read in order.

    A context manager: at its end the file is closed and the decoder's scratch folder deleted.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._for_all = contextlib.ExitStack()
        self._path: Path | None = None
        self._stream: BinaryIO | None = None
        self._spans: list[list[tuple[int, int]]] = []
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()
        self._for_all.close()

    def words(self, header: SliceHeader) -> Words:
        """Read the stored words of one slice ``(H, W)``, all their bits.

        Raises:
            SiteDataError: the image is cut short, or can't be decoded.
        """
        element = header.pixels.element
        if header.matrix is None or element is None:
            raise SiteDataError(f"{header.path}: there is no image", code="no-pixels")
        stream = self._stream_of(header, element)
        if not is_compressed(header.pixels.syntax):
            return _native(stream, header, element)
        parts = []
        for start, length in self._spans[header.frame]:
            stream.seek(start)
            parts.append(stream.read(length))
        return decode_frame(b"".join(parts), header, self._scratch_file())

    def _stream_of(self, header: SliceHeader, element: PixelElement) -> BinaryIO:
        if self._stream is not None and self._path == header.path:
            return self._stream
        self._open.close()
        stream = self._open.enter_context(opened(header.path))
        if is_compressed(header.pixels.syntax):
            self._spans = frame_spans(stream, element, header.n_frames, header.path)
        self._path, self._stream = header.path, stream
        return stream

    def _scratch_file(self) -> Path:
        if self._scratch is None:
            folder = tempfile.TemporaryDirectory(prefix="nognet-", ignore_cleanup_errors=True)
            self._scratch = Path(self._for_all.enter_context(folder)) / "frame.dcm"
        return self._scratch


def _native(stream: BinaryIO, header: SliceHeader, element: PixelElement) -> Words:
    rows, columns = header.matrix or (0, 0)
    width = header.pixels.bits[0] // 8
    if width not in (2, 4):
        message = f"{header.path}: {header.pixels.bits[0]} bits allocated; a CT has 16"
        raise SiteDataError(message, code="bad-tags")
    count = rows * columns * width
    stream.seek(element.start + header.frame * count)
    raw = stream.read(count)
    if len(raw) != count:
        raise SiteDataError(f"{header.path}: the image is cut short", code="truncated")
    order = ">" if header.pixels.syntax == BIG_ENDIAN else "<"
    words: Words = np.frombuffer(raw, dtype=f"{order}u{width}").reshape(rows, columns)
    return words if order == "<" else cast("Words", words.byteswap().view(f"<u{width}"))
