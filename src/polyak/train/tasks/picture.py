"""One picture file as an array, and the form that all pictures of a task have. A saved model carries that form with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes without colour
ORIENTATION = 0x0112  # the EXIF tag by which cameras say that a picture is on its side


class BadPicture(ValueError):  # noqa: N818  (it says what is bad)
    """A file that is no picture, or a damaged one."""


@dataclass(frozen=True)
class PictureForm:
    """What every picture is made into.

    Attributes:
        height, width: In pixels. Pictures of other proportions are stretched: nothing is cut off.
        channels: 1 for grey, 3 for red, green and blue.
        mean, spread: Of each channel, over the pictures that were trained on, in units of the pixels, 0 to 255.
    """

    height: int
    width: int
    channels: int
    mean: Sequence[float] = (0.0,)
    spread: Sequence[float] = (1.0,)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """A picture file as uint8, (height, width, channels).

        Raises:
            BadPicture: It cannot be decoded.
        """
        from PIL import Image, ImageOps

        with opened(path) as image:
            try:
                upright = ImageOps.exif_transpose(plain(image))
            except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error ...
                raise BadPicture(f"{path}: {error}") from error
        small = upright.convert("L" if self.channels == 1 else "RGB").resize(
            (self.width, self.height), Image.Resampling.BILINEAR
        )
        return np.asarray(small, np.uint8).reshape(self.height, self.width, self.channels)


def opened(path: Path) -> "Image.Image":
    """An open picture, of which the header is read.

    Raises:
        BadPicture: It is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path, formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:
        raise BadPicture(f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from error
    except Exception as error:
        what = "no PNG or JPEG" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadPicture(f"{path}: {what}") from error


def header(path: Path) -> tuple[int, int, bool]:
    """Height, width as it is looked at, and whether it has colours. Only the beginning of the file is read.

    Raises:
        BadPicture: It is no picture.
    """
    with opened(path) as image:
        width, height = image.size
        try:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
        except Exception:  # damaged EXIF is no reason to leave a picture out
            turned = False
        return (width, height, image.mode not in GREY) if turned else (height, width, image.mode not in GREY)


def plain(image: "Image.Image") -> "Image.Image":
    """Grey or RGB of 8 bits: transparent pixels on white, 16 bits a channel scaled down."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, np.float64)
        return Image.fromarray(np.clip(values / 257 if image.mode != "F" else values, 0, 255).round().astype(np.uint8), "L")
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("L" if image.mode in GREY else "RGB")
