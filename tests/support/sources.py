"""Files of datasets as users have them on disk."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ferbench.seeds import generator


def png(seed: int = 0, size: tuple[int, int] = (48, 48), kind: str = "PNG", **more) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **more)
    return buffer.getvalue()


def npy(value, **more) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, **more)
    return buffer.getvalue()


def lay(root: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(root: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, path.relative_to(root))
    return out


def ckplus(prefix: str = "", labels: str = "Emotion/") -> dict[str, bytes | str]:
    points = np.full((68, 2), 0.0)
    points[36:42], points[42:48] = (120, 100), (180, 100)
    points[[48, 54]] = (135, 165), (165, 165)
    rows = "\n".join(f"   {x:.7e}   {y:.7e}" for x, y in points)
    files: dict[str, bytes | str] = {f"{prefix}cohn-kanade-images/.DS_Store": "junk", "CVPR2010_CK.pdf": "junk"}
    for frame in range(1, 8):
        stem = f"S005_001_{frame:08d}"
        files[f"{prefix}cohn-kanade-images/S005/001/{stem}.png"] = png(frame, (320, 240))
        files[f"{prefix}Landmarks/S005/001/{stem}_landmarks.txt"] = rows
        files[f"{prefix}cohn-kanade-images/S005/002/S005_002_{frame:08d}.png"] = png(frame)  # not labelled
    files[f"{prefix}{labels}S005/001/S005_001_00000007_emotion.txt"] = "   3.0000000e+00\n"
    return files


def photograph(number: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """Noise whose amplitude falls with frequency, as in photographs: there is detail at every scale."""
    rng = generator(0, "photograph", number)
    height, width = size[1], size[0]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    spectrum = np.fft.fft2(rng.normal(size=(height, width))) / np.maximum(frequency, 1 / 64)
    values = np.fft.ifft2(spectrum).real
    values = 128 + 40 * (values - values.mean()) / values.std()
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
