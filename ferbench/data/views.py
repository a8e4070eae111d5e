"""A view: the pictures of a prepared dataset at one size, in one colour and by one alignment.

``images.npy`` is the view (48, grey, template). Importing this loads neither pandas nor Pillow.
"""

from typing import Annotated, Literal

from pydantic import Field

from ferbench.schema import Schema

Alignment = Literal["template", "as-is", "box", "arcface", "ddamfn", "raf"]


class View(Schema):
    """size : height and width in pixels. colour : of grey pictures the levels are repeated for "rgb".

    alignment : "template": as in ``images.npy``; "as-is": the picture as the dataset gives it; "box": 1.2 times the
    face's box; "arcface", "ddamfn", "raf": landmarks on the places where the code of that name expects them.
    resize : filter of Pillow for pictures that are not turned; by default the one that makes ``images.npy``.
    """

    size: Annotated[int, Field(ge=8, le=1024)] = 48
    colour: Literal["grey", "rgb"] = "grey"
    alignment: Alignment = "template"
    resize: Literal["", "bilinear", "bicubic"] = ""

    def __str__(self) -> str:
        return f"{self.size} {self.colour}" + (f", {self.alignment}" if self.alignment != "template" else "")


IMAGES = View()  # what images.npy holds


class InputSpec(View):
    """What a network sees: a view, of which ``mean`` is subtracted and by ``std`` divided, for each channel or for all,
    after 0 to 255 was scaled to 0 to 1. The defaults are those of ImageNet (timm's ``pretrained_cfg``)."""

    size: Annotated[int, Field(ge=8, le=1024)] = 112
    colour: Literal["grey", "rgb"] = "rgb"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def view(self) -> View:
        return View(size=self.size, colour=self.colour, alignment=self.alignment, resize=self.resize)
